"""Words of the made-up platform: categories, tags, aliases, profiles and time zones."""

from __future__ import annotations

# The eleven names are the data set's own, its spelling of "Weather" included; the subcategories are ours, seven each.
CATEGORIES: dict[str, tuple[str, ...]] = {
    "Animal": ("Bird", "Cat", "Dog", "Horse", "Insect", "Pet", "Zoo"),
    "Electronics": ("Audio", "Camera", "Computer", "Gadget", "Phone", "Robot", "Screen"),
    "Entertainment": ("Comics", "Concert", "Dance", "Film", "Game", "Music", "Theatre"),
    "Family": ("Baby", "Brother", "Children", "Father", "Home", "Mother", "Wedding"),
    "Fashion": ("Bag", "Dress", "Hair", "Jewelry", "Makeup", "Shoes", "Style"),
    "Food": ("Bread", "Cake", "Coffee", "Dinner", "Fruit", "Soup", "Tea"),
    "Holiday&Celebrations": ("Birthday", "Carnival", "Christmas", "Easter", "Festival", "Halloween", "Party"),
    "Social&People": ("Crowd", "Friends", "Group", "Portrait", "School", "Selfie", "Work"),
    "Travel&Active&Sports": ("Climbing", "Cycling", "Football", "Hiking", "Running", "Swimming", "Tennis"),
    "Urban": ("Architecture", "Bridge", "Bus", "Market", "Museum", "Street", "Train"),
    "Whether&Season": ("Autumn", "Cloud", "Fog", "Rain", "Spring", "Summer", "Wind"),
}
CATEGORY_NAMES = tuple(CATEGORIES)
CONCEPT_ENDINGS = ("", "art", "club", "day", "fan", "gear", "life", "story")
TAG_WORDS = (
    "art", "canon", "color", "daily", "digital", "europe", "fun", "handmade", "iphone", "light", "macro", "minimal",
    "nikon", "old", "photo", "project365", "sketch", "square", "toy", "vintage",
)  # fmt: skip

ALIAS_FIRST = ("amber", "brisk", "cosy", "dusty", "early", "faint", "hazel", "inky", "jolly", "mild", "noble", "plain")
ALIAS_SECOND = (
    "acorn",
    "badge",
    "candle",
    "drum",
    "engine",
    "fern",
    "lantern",
    "needle",
    "otter",
    "pebble",
    "quill",
    "wagon",
)
PROFILE_LINES = (
    "I take <b>pictures</b> on weekends.",
    'My prints: <a href="https://example.org/prints">shop</a>',
    "Amateur, learning every day.",
    "Please ask before using my photos.<br/>Thank you!",
    "Old lenses &amp; new ideas",
    "Caf\u00e9 owner. Father of two.",
    "",
    "",
)
HOME_PLACES = ("", "", "Lisbon, Portugal", "Osaka, Japan", "Leeds, UK", "Austin, TX", "M\u00e1laga", "Graz, Austria")
# name, offset as text, offset in quarter hours east of UTC: what the two user-data forms call the same zone.
TIME_ZONES = (
    ("UTC", "+00:00", 0),
    ("London", "+00:00", 0),
    ("Berlin", "+01:00", 4),
    ("Athens", "+02:00", 8),
    ("Tokyo", "+09:00", 36),
    ("Eastern Time (US & Canada)", "-05:00", -20),
    ("Pacific Time (US & Canada)", "-08:00", -32),
    ("Mumbai", "+05:30", 22),
)
