"""The one table of features: each column of `post_features` that a model may see, its group and its meaning."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from smp_features.errors import ConfigError, nearest

Kind = Literal["number", "category", "buckets", "vector"]

BUCKETS = 1024
"""Words are hashed into so many buckets."""


@dataclass(frozen=True)
class Lookup:
    """A value that an extractor computed from one of a post's contents.

    Attributes:
        extractor: The extractor's name, such as `clip_text`.
        of: The content it was computed from: `image`, `title`, or the name of the extractor that made a text of the
            image, such as `caption`.
        column: The column of the extractor's table.
    """

    extractor: str
    of: str
    column: str


@dataclass(frozen=True)
class Cosine:
    """The cosine of two vector features of the same post; null when either is missing.

    Attributes:
        left: A feature's name.
        right: Another's.
    """

    left: str
    right: str


@dataclass(frozen=True)
class Feature:
    """One column of `post_features` that a model may see.

    Attributes:
        name: The column.
        group: The feature group it is switched with.
        kind: `number` (double), `category` (string, encoded inside the fold), `buckets` (array<bigint>, a hash per
            word) or `vector` (array<float>).
        comment: Meaning, unit, range, and what null means.
        picture: The column depends on the image, directly or through its caption.
        made: How its value is found: in an extractor's table, or as a cosine of two other features; null for those
            that the package computes from the source's own columns.
    """

    name: str
    group: str
    kind: Kind
    comment: str
    picture: bool = False
    made: Lookup | Cosine | None = None

    @property
    def sql_type(self) -> str:
        """Spark SQL type of the column."""
        return {"number": "double", "category": "string", "buckets": "array<bigint>", "vector": "array<float>"}[
            self.kind
        ]


def _numbers(group: str, picture: bool = False, **comments: str) -> list[Feature]:
    return [Feature(name, group, "number", comment, picture) for name, comment in comments.items()]


def _categories(group: str, **comments: str) -> list[Feature]:
    return [Feature(name, group, "category", comment) for name, comment in comments.items()]


_COSINE = "cosine of CLIP embeddings, -1..1; null when either is missing"

FEATURES: tuple[Feature, ...] = (
    Feature("image_embedding", "image", "vector", "CLIP image embedding, L2-normalised; null without a picture", True),
    Feature(
        "caption_embedding", "caption", "vector", "CLIP text embedding of the caption, L2-normalised; or null", True
    ),
    Feature("title_embedding", "text", "vector", "CLIP text embedding of the title, L2-normalised; null if empty"),
    *_numbers(
        "similarity",
        picture=True,
        caption_title_similarity=f"caption against title: {_COSINE} (the paper's inconsistency measure, figure 3)",
        image_title_similarity=f"image against title: {_COSINE}",
        image_caption_similarity=f"image against caption: {_COSINE}",
    ),
    *_numbers(
        "perplexity",
        title_log_perplexity="mean negative log-likelihood of the title, nats per token; null if empty (figure 4)",
        title_token_count="tokens of the title scored by the language model; null if empty",
    ),
    *_numbers(
        "title",
        title_char_count="characters in the title, 0 if empty",
        title_word_count="white-space separated words in the title",
        title_digit_share="digits per character, 0..1; 0 if empty",
        title_upper_share="upper-case letters per letter, 0..1; 0 without letters",
        title_non_ascii_share="non-ASCII characters per character, 0..1; 0 if empty",
        title_hashtag_count="words that start with #",
        title_has_link="1 if the title holds a URL, else 0",
    ),
    *_numbers(
        "tags",
        tag_count="space-separated tags",
        tag_char_count="characters over all tags",
    ),
    *_numbers(
        "title",
        title_script_share="letters of the script title_script per letter, 0..1; null without letters",
    ),
    *_categories(
        "title",
        title_script="Unicode script that most letters of the title are of (Latin, Han …); null without letters",
    ),
    Feature(
        "tag_buckets",
        "tags",
        "buckets",
        f"CRC-32 of each lower-cased tag modulo {BUCKETS}, in the order of the tags; empty without tags",
    ),
    *_numbers(
        "time",
        event_year="UTC calendar year",
        event_month="UTC month, 1..12",
        event_weekday="UTC day of the week, 1 = Monday .. 7",
        event_hour="UTC hour, 0..23",
        event_day_of_year="UTC day of the year, 1..366",
        event_epoch_days="days since 1970-01-01 UTC, with fraction",
        local_hour="hour in the user's zone as known at the post, 0..23; null if unknown",
        local_weekday="day of the week in the user's zone as known at the post, 1 = Monday .. 7; null if unknown",
    ),
    *_numbers(
        "place",
        has_place="1 if the post carries a position, else 0",
        latitude="degrees north, -90..90; null without a place",
        longitude="degrees east, -180..180; null without a place",
        geo_accuracy="Flickr accuracy, 1 world .. 16 street; null without a place",
    ),
    *_categories(
        "category",
        category="top-level category, as spelled by the source",
        subcategory="sub-category",
        concept="concept",
        media_type="photo or video",
    ),
    *_numbers(
        "user",
        user_photo_count="photos of the user, from the profile known at the post; null if unknown",
        user_account_age_days="days from the user's first photo to the post; null if unknown",
        user_is_pro="1 for a pro account, 0 not; null if unknown",
        user_timezone_offset_hours="offset of the user's zone from UTC, hours; null if unknown",
        user_description_char_count="characters of the profile text; null where the source cannot express it",
        user_has_location="1 if the profile states a location, else 0; null if unknown",
        user_has_alias="1 if the user has a path alias, else 0",
    ),
    *_numbers(
        "history",
        history_post_count="the user's posts made strictly before this one, 0 for the first",
        history_days_since_last="days since the latest of them; null for the first",
        history_known_label_count="how many of them had a label known at the post (labels.known_at), 0 if none",
        history_known_label_mean="mean of those labels, log2(views + 1); null if none was known",
        history_known_label_last="label of the latest post among those; null if none was known",
    ),
    *_numbers(
        "external",
        external_views="total views of the user at the crawl; null unless known at the post (or challenge rules)",
        external_tags="total tags at the crawl; null as above",
        external_geotagged="geotagged photos at the crawl; null as above",
        external_faves="faves at the crawl; null as above",
        external_in_group="photos in groups at the crawl; null as above",
        external_photos="photos at the crawl; null as above",
        external_followers="followers at the crawl; null as above",
        external_followings="followings at the crawl; null as above",
    ),
)

GROUPS: tuple[str, ...] = tuple(dict.fromkeys(feature.group for feature in FEATURES))

CONTENT_GROUPS = ("image", "caption", "text", "similarity", "perplexity")
"""Groups made by the frozen models; all others are metadata."""

PICTURE = "picture"
"""The name under which all columns that depend on the image are left out together."""


def columns_of(name: str) -> tuple[str, ...]:
    """Columns that belong to a group, or to the set `picture`, in table order.

    Args:
        name: A name of `GROUPS`, or `picture`: the image embedding, the caption and every similarity with the image.

    Raises:
        ConfigError: There is no such group.
    """
    if name == PICTURE:
        return tuple(feature.name for feature in FEATURES if feature.picture)
    if name not in GROUPS:
        raise ConfigError(f"Unknown feature group '{name}'.", nearest(name, [*GROUPS, PICTURE]))
    return tuple(feature.name for feature in FEATURES if feature.group == name)


def selected(groups: Iterable[str] | None, without: Iterable[str] = ()) -> tuple[Feature, ...]:
    """Features of the named groups, less those of the groups left out.

    Args:
        groups: Names of `GROUPS`; None means all.
        without: Groups, or `picture`, to leave out.
    """
    wanted = {column for group in (GROUPS if groups is None else groups) for column in columns_of(group)}
    dropped = {column for group in without for column in columns_of(group)}
    return tuple(feature for feature in FEATURES if feature.name in wanted - dropped)
