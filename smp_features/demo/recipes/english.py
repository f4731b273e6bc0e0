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
        words = [THINGS[rng.integers(len(THINGS))]]
        if rng.random() < 0.5:
            words.insert(0, DESCRIPTIONS[rng.integers(len(DESCRIPTIONS))])
        return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"
    options = WORD_LISTS[slot]
    return options[rng.integers(len(options))]
