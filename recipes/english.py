"""Broader English from a small grammar, so that the tiny language model has seen more than titles of scenes."""

from __future__ import annotations

import numpy as np

PEOPLE = (
    "my mother", "my father", "my brother", "her sister", "our teacher", "the doctor", "an old man", "a young woman",
    "the children", "the neighbours", "his friend", "their uncle", "the farmer", "the driver", "my grandmother", "we",
    "they", "I", "you", "he", "she", "people", "everyone", "nobody", "the team", "the police", "a student",
    "the boss", "Anna", "Peter", "Maria", "John", "Sarah", "David", "the singer", "a stranger", "the girl", "the boy",
    "the family",
)  # fmt: skip
THINGS = (
    "book", "table", "window", "door", "letter", "picture", "garden", "kitchen", "bridge", "river", "mountain",
    "road", "car", "train", "bicycle", "coat", "hat", "shoe", "bag", "phone", "camera", "computer", "paper", "pencil",
    "bottle", "glass", "plate", "knife", "bread", "cheese", "apple", "cake", "coffee", "tea", "water", "milk", "soup",
    "dinner", "party", "song", "dance", "film", "story", "game", "dream", "idea", "question", "answer", "problem",
    "plan", "job", "office", "school", "hospital", "church", "shop", "market", "station", "airport", "hotel",
    "museum", "park", "lake", "forest", "island", "village", "town", "country", "world", "street", "corner", "roof",
    "wall", "floor", "chair", "bed", "lamp", "clock", "mirror", "key", "box", "ring", "dress", "shirt", "cat", "dog",
    "horse", "cow", "bird", "sheep", "flower", "grass", "leaf", "stone", "cloud", "storm", "wind", "sun", "sky",
    "sea", "wave", "sand", "fire", "smoke", "light", "shadow", "colour", "sound", "voice", "face", "hand", "eye",
    "heart", "mind", "body", "life", "year", "month", "week", "day", "hour", "minute", "summer", "winter", "autumn",
    "weekend", "holiday", "birthday", "wedding", "concert", "festival", "exhibition", "meeting", "lesson", "trip",
    "journey", "view", "place", "room", "building", "tower", "castle", "farm", "field", "path", "gate", "fence",
    "boat", "ship", "harbour", "beach",
)  # fmt: skip
DESCRIPTIONS = (
    "old", "new", "big", "small", "long", "short", "high", "low", "young", "good", "bad", "better", "best", "great",
    "little", "early", "late", "hot", "cold", "warm", "cool", "dry", "wet", "clean", "dirty", "dark", "bright",
    "light", "heavy", "fast", "slow", "quick", "easy", "difficult", "strong", "weak", "rich", "poor", "happy", "sad",
    "angry", "tired", "hungry", "busy", "free", "full", "empty", "open", "closed", "quiet", "loud", "soft", "hard",
    "sweet", "fresh", "famous", "popular", "important", "interesting", "boring", "beautiful", "ugly", "nice",
    "wonderful", "terrible", "strange", "different", "same", "real", "true", "modern", "ancient", "local", "foreign",
    "wooden", "golden", "broken", "lost", "hidden", "secret", "favourite", "second", "third", "last", "next", "whole",
    "single",
)  # fmt: skip
PAST_VERBS = (
    "found", "lost", "bought", "sold", "made", "took", "gave", "saw", "heard", "felt", "wrote", "read", "built",
    "broke", "opened", "closed", "cleaned", "painted", "carried", "showed", "left", "kept", "brought", "sent",
    "caught", "chose", "remembered", "forgot", "loved", "liked", "hated", "needed", "wanted", "used", "visited",
    "crossed", "watched", "followed", "described", "discovered", "photographed", "finished", "started", "shared",
    "ordered", "repaired",
)  # fmt: skip
BASE_VERBS = (
    "find", "lose", "buy", "sell", "make", "take", "give", "see", "hear", "feel", "write", "read", "build", "break",
    "open", "close", "clean", "paint", "carry", "show", "leave", "keep", "bring", "send", "catch", "choose",
    "remember", "forget", "love", "like", "need", "want", "use", "visit", "cross", "watch", "follow", "describe",
    "finish", "share",
)  # fmt: skip
GOING = (
    "went", "walked", "ran", "drove", "came", "travelled", "returned", "moved", "climbed", "swam", "flew", "rode",
    "hurried", "wandered", "looked", "pointed",
)  # fmt: skip
STILL = (
    "slept", "waited", "stood", "sat", "stayed", "worked", "played", "talked", "laughed", "cried", "sang", "danced",
    "rested", "met", "lived", "cooked", "ate",
)  # fmt: skip
WHERE = (
    "in the {thing}", "near the {thing}", "behind the {thing}", "under the {thing}", "over the {thing}",
    "at the {thing}", "by the {thing}", "from the {thing}", "beside the {description} {thing}",
    "through the {description} {thing}", "between the {thing} and the {thing}", "across the {thing}",
    "inside {a_thing}", "around the {thing}", "in front of the {thing}", "on the other side of the {thing}",
    "in London", "in Paris", "in New York", "in Italy", "at home", "abroad", "next door", "downtown", "upstairs",
    "outside", "everywhere", "in the middle of the {thing}",
)  # fmt: skip
WHEN = (
    "yesterday", "today", "tomorrow", "last night", "last week", "this evening", "every day", "every morning",
    "again", "on Monday", "on Friday", "in January", "in August", "in the morning", "at noon", "at midnight",
    "for an hour", "for two days", "for many years", "a long time ago", "before dinner", "after school",
    "after the storm", "at once", "very slowly", "quite often", "too early", "as usual", "together", "alone",
    "already", "at the end of the day", "on Saturday night", "during the winter", "since 2012", "in 1998",
    "three times", "on the way back", "once a year",
)  # fmt: skip
LINKS = ("because", "and", "but", "so", "while", "when", "although", "before", "after", "until", "if", "that")
SENTENCES = (
    "{who} {past} {a_thing} {when}.",
    "{who} {past} the {description} {thing} {where}.",
    "{who} {past} {a_thing} {link} {who} {past} the {thing}.",
    "{who} {going} to the {thing} {when}.",
    "{who} {still} {where} {when}.",
    "{who} {still} {where} {link} {who} {going} to the {description} {thing}.",
    "The {thing} was {description} and the {thing} was {description}.",
    "The {description} {thing} {where} is {description}.",
    "There is {a_thing} {where}.",
    "There were two {thing}s and {a_thing} {where}.",
    "It was a {description} {thing}, not a {description} one.",
    "Where is the {thing}?",
    "Did you {base} the {thing} {where}?",
    "How do you {base} a {description} {thing}?",
    "Can we {base} it {when}?",
    "I would like to {base} the {description} {thing}.",
    "You should never {base} a {thing} {when}.",
    "{who} will {base} the {thing} {when}.",
    "{who} has {past} every {thing} {where}.",
    "Please {base} your {thing} {where}.",
    "Let's {base} the {thing} {when}!",
    "What {a_thing}!",
    "{description} {thing}",
    "{description} {thing} {where}",
    "The {thing} {where}",
    "{thing} and {thing}",
    "{thing} of the {thing}",
    "My {description} {thing} {when}",
    "{description} and {description}",
    "{where}, {when}",
    "{when}, {who} {past} the {thing} of the {thing}.",
    "{who} could not {base} the {thing} without {a_thing}.",
    "More {thing}s than {thing}s this year",
    "How to {base} {a_thing} in ten minutes",
    "One of the {description} {thing}s {where}",
    "Happy {thing} to {who}!",
    "Thank you all for the {description} {thing}",
    "{past} {when} with {a_thing}",
    "{thing} {thing} {where}",
    "{thing}s {base} {where} {when}",
    "{description} {thing}s {past} by {a_thing}",
    "Our {thing} {past} {description} {thing}s",
    "The {description} {thing} of {thing}s and {thing}s",
    "{thing}, {thing} and {description} {thing}s",
    "Most {thing}s {base} the {description} {thing} beside the {thing}",
    "{base} the {thing} as much as the {thing}",
    "Two {description} {thing}s {past} their {thing} before {thing}",
    "{thing} {base} for {thing} with {thing} and {thing}",
)
WORD_LISTS = {
    "who": PEOPLE,
    "thing": THINGS,
    "description": DESCRIPTIONS,
    "past": PAST_VERBS,
    "base": BASE_VERBS,
    "going": GOING,
    "still": STILL,
    "where": WHERE,
    "when": WHEN,
    "link": LINKS,
}
LOWER_SHARE = 0.2
# Stems, with what may stand before and behind them. Not every result is in a dictionary, but all are spelled like
# English: the model learns that a word it does not know is still likelier than letters typed at random.
STEMS = (
    "act", "agree", "aim", "appear", "apply", "arm", "ask", "assist", "attach", "attend", "bake", "balance", "band",
    "bank", "bark", "base", "bath", "beam", "bear", "bell", "belong", "bend", "blame", "blend", "bless", "block",
    "board", "boil", "bone", "border", "borrow", "branch", "brand", "breath", "brew", "brick", "brush", "bubble",
    "bud", "burn", "bush", "button", "call", "candle", "care", "cart", "carve", "case", "cast", "cause", "cell",
    "centre", "chain", "chance", "change", "charge", "charm", "chart", "check", "cheer", "chief", "claim", "class",
    "clay", "clear", "cliff", "climb", "cloth", "coal", "coast", "collect", "comb", "comfort", "command", "common",
    "compare", "complain", "concern", "connect", "consider", "contain", "control", "copper", "copy", "corn", "cost",
    "cotton", "count", "course", "cover", "craft", "crash", "cream", "creep", "crime", "crop", "crowd", "crown",
    "cure", "curl", "current", "curtain", "custom", "damp", "danger", "deal", "decide", "deep", "defend", "delight",
    "deliver", "demand", "depend", "desert", "desire", "detail", "develop", "direct", "discuss", "distance", "doubt",
    "draft", "drain", "draw", "drift", "drill", "drink", "drop", "dust", "duty", "earn", "earth", "edge", "educate",
    "effect", "effort", "elect", "employ", "enjoy", "enter", "equal", "event", "exact", "examine", "example",
    "excite", "exist", "expand", "expert", "express", "extend", "fabric", "fact", "fade", "fail", "faith", "fall",
    "fan", "feather", "figure", "fill", "filter", "firm", "fit", "flag", "flame", "flash", "flat", "flavour", "float",
    "flood", "flour", "flow", "fold", "force", "form", "fortune", "frame", "friend", "fruit", "fuel", "function",
    "gain", "gather", "gentle", "ghost", "gift", "glance", "glory", "glow", "govern", "grace", "grain", "grand",
    "grant", "gravel", "greet", "grind", "grip", "ground", "group", "grow", "guard", "guess", "guest", "habit",
    "hammer", "handle", "harm", "harvest", "haste", "health", "heat", "help", "herb", "hero", "history", "hold",
    "honest", "honey", "honour", "hook", "hope", "host", "human", "humour", "hunt", "imagine", "import", "improve",
    "include", "increase", "inform", "inspect", "instruct", "insure", "intend", "invent", "invite", "iron", "item",
    "join", "judge", "jump", "just", "keen", "kick", "kind", "king", "kiss", "knit", "knot", "label", "labour",
    "ladder", "land", "language", "laugh", "law", "lead", "lean", "learn", "leather", "legend", "lend", "level",
    "lift", "limit", "line", "list", "load", "loan", "local", "lock", "log", "loop", "loss", "luck", "machine",
    "magic", "manner", "march", "mark", "marvel", "mass", "master", "match", "matter", "meal", "mean", "measure",
    "memory", "mend", "merry", "metal", "method", "middle", "mill", "mine", "mist", "mix", "model", "moment",
    "motion", "motor", "mount", "muscle", "music", "nail", "name", "nation", "nature", "neat", "nerve", "nest",
    "noise", "normal", "note", "notice", "number", "object", "observe", "occasion", "offer", "oil", "operate",
    "opinion", "order", "organ", "origin", "owner", "pack", "page", "pain", "pair", "palace", "panel", "parcel",
    "pardon", "part", "pass", "pattern", "pause", "peace", "pepper", "perform", "permit", "person", "piece", "pile",
    "pilot", "pipe", "pity", "plain", "plant", "plaster", "plastic", "please", "plenty", "pocket", "poem", "point",
    "polish", "pool", "port", "post", "pot", "pound", "powder", "power", "practice", "praise", "pray", "prepare",
    "present", "press", "prevent", "price", "pride", "print", "prison", "produce", "profit", "program", "promise",
    "proof", "protect", "prove", "provide", "public", "pull", "pump", "punish", "pupil", "pure", "purpose", "push",
    "quarter", "race", "rail", "raise", "range", "rank", "rate", "raw", "reach", "reason", "receive", "record",
    "reduce", "refer", "reflect", "refuse", "regret", "regular", "relate", "relax", "rely", "remain", "remark",
    "remind", "remove", "rent", "repeat", "reply", "report", "request", "respect", "rest", "result", "reveal",
    "review", "reward", "rhythm", "ribbon", "rise", "risk", "rock", "roll", "root", "rough", "round", "row", "rubber",
    "rule", "sail", "salt", "sample", "satisfy", "save", "scale", "scene", "scent", "science", "score", "scratch",
    "screen", "screw", "search", "season", "seat", "seed", "select", "send", "sense", "separate", "series", "serve",
    "settle", "shake", "shape", "sharp", "shelf", "shell", "shelter", "shift", "shine", "shock", "shoulder", "shout",
    "sign", "silence", "silk", "silver", "simple", "skill", "skin", "slice", "slide", "smart", "smile", "smooth",
    "snap", "soap", "social", "solid", "sort", "soul", "source", "space", "spark", "special", "speech", "speed",
    "spell", "spend", "spice", "spirit", "splendid", "split", "sport", "spot", "spread", "spring", "staff", "stage",
    "stain", "stamp", "standard", "steady", "steal", "steam", "steel", "steep", "step", "stick", "stiff", "stir",
    "stock", "stream", "strength", "stretch", "strict", "strike", "string", "struggle", "study", "stuff", "style",
    "subject", "success", "suffer", "sugar", "suggest", "suit", "supply", "support", "surface", "surprise",
    "surround", "swallow", "sweep", "swim", "swing", "sword", "sympathy", "system", "tail", "talent", "target",
    "task", "taste", "tax", "teach", "tear", "temper", "tend", "tender", "test", "thank", "theory", "thick", "thin",
    "thought", "thread", "threat", "throat", "thunder", "ticket", "tight", "timber", "tool", "tooth", "total",
    "touch", "trace", "track", "trade", "tradition", "traffic", "trail", "transport", "travel", "treasure", "treat",
    "trend", "trial", "triumph", "trouble", "trust", "tube", "tune", "turn", "twist", "type", "union", "unit",
    "value", "vanish", "vary", "velvet", "verse", "victory", "violet", "virtue", "vision", "vote", "wage", "wander",
    "warn", "wash", "waste", "weapon", "weave", "weigh", "welcome", "wheel", "whisper", "wild", "wine", "wing",
    "wire", "wise", "wish", "witness", "wool", "word", "work", "worry", "worth", "wound", "wrap", "wrist", "yard",
    "yarn", "yield", "youth", "zeal", "zone",
)  # fmt: skip
BEFORE_STEM = (
    "un",
    "re",
    "over",
    "under",
    "out",
    "dis",
    "mis",
    "pre",
    "inter",
    "in",
    "en",
    "fore",
    "up",
    "super",
    "sub",
)
BEHIND_STEM = (
    "s", "ed", "ing", "er", "ers", "ly", "ful", "less", "ness", "ment", "able", "ation", "ist", "ism", "ity", "ous",
    "al", "ive", "ian", "ic", "ish", "y", "ship", "hood", "ward", "wise", "age", "ance", "ent", "ery", "man", "house",
    "work", "land", "side", "light", "way", "stone", "ford", "ton", "berg", "ville",
)  # fmt: skip
OPEN_SLOTS = {"thing", "description", "past", "base", "going", "still"}
OPEN_SHARE = 0.4  # of the words in those slots


def sentence(rng: np.random.Generator) -> str:
    """Return one sentence or headline of the grammar, grammatical more often than sensible."""
    text = SENTENCES[rng.integers(len(SENTENCES))]
    while "{" in text:
        start = text.index("{")
        stop = text.index("}", start)
        text = text[:start] + _fill(text[start + 1 : stop], rng) + text[stop + 1 :]
    if rng.random() < LOWER_SHARE:
        return text.lower()
    return text[0].upper() + text[1:]


def _fill(slot: str, rng: np.random.Generator) -> str:
    if slot == "a_thing":
        words = [_fill("thing", rng)]
        if rng.random() < 0.5:
            words.insert(0, _fill("description", rng))
        return f"{'an' if words[0][0] in 'aeiouAEIOU' else 'a'} {' '.join(words)}"
    if slot in OPEN_SLOTS and rng.random() < OPEN_SHARE:
        return _derived_word(rng)
    options = WORD_LISTS[slot]
    return options[rng.integers(len(options))]


def _derived_word(rng: np.random.Generator) -> str:
    word = STEMS[rng.integers(len(STEMS))]
    if rng.random() < 0.2:
        word = BEFORE_STEM[rng.integers(len(BEFORE_STEM))] + word
    if rng.random() < 0.6:
        ending = BEHIND_STEM[rng.integers(len(BEHIND_STEM))]
        word = word[:-1] + ending if word[-1] == "e" and ending[0] in "aeiouy" else word + ending
    return word.capitalize() if rng.random() < 0.1 else word
