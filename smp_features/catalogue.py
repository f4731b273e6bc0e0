"""The features: each column of `post_features` that a model may see, its group, its meaning, and how it is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from smp_features.errors import ConfigError, nearest

if TYPE_CHECKING:
    from smp_features.config import Config

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
        picture: The column depends on the image, directly or through a text made of it; `Catalogue.of` finds out.
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


def _numbers(group: str, **comments: str) -> list[Feature]:
    return [Feature(name, group, "number", comment) for name, comment in comments.items()]


def _categories(group: str, **comments: str) -> list[Feature]:
    return [Feature(name, group, "category", comment) for name, comment in comments.items()]


BUILT_IN: tuple[Feature, ...] = (
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

PICTURE = "picture"
"""The name under which all columns that depend on the image are left out together."""


def fingerprint_column(extractor: str) -> str:
    """Return the column that says of a row which fingerprint of an extractor it was made with."""
    return f"{extractor}_extractor"


class Describes(Protocol):
    """What a catalogue asks of an extractor."""

    @property
    def name(self) -> str:
        """Unique in a configuration."""

    @property
    def reads(self) -> str:
        """`image` or `text`."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The columns of `post_features` that it adds, with how their values are found."""


@dataclass(frozen=True)
class Catalogue:
    """All features of a configuration: those of its extractors, then those of the source's own columns.

    Attributes:
        features: In the order of the columns of `post_features`.
    """

    features: tuple[Feature, ...]

    @classmethod
    def of(cls, extractors: Mapping[str, Describes]) -> Catalogue:
        """Collect the features of some extractors and the built-in ones.

        Args:
            extractors: By name, in the order of their columns.

        Raises:
            ConfigError: Two features have one name, a group of an extractor is one of the built-in groups, or a
                feature is made of something that does not exist.

        >>> Catalogue.of({}).columns_of("place")
        ('has_place', 'latitude', 'longitude', 'geo_accuracy')
        """
        origin = {feature.name: "the package itself" for feature in BUILT_IN}
        taken = {feature.group for feature in BUILT_IN} | {PICTURE}
        brought: list[Feature] = []
        for extractor in extractors.values():
            for feature in extractor.features:
                mine = f"the extractor '{extractor.name}'"
                if feature.name in origin:
                    raise ConfigError(
                        f"Two features are called '{feature.name}': one of {origin[feature.name]}, one of {mine}.",
                        "Give the entry under `models` another name.",
                    )
                if feature.group in taken:
                    raise ConfigError(
                        f"The feature '{feature.name}' of {mine} would join '{feature.group}', "
                        "a group of the package itself.",
                        "Give the entry under `models` another name.",
                    )
                origin[feature.name] = mine
                brought.append(feature)
        vectors = {feature.name for feature in brought if feature.kind == "vector"}
        for feature in brought:
            _check_made(feature, extractors, vectors)
        images = {"image", *(each.name for each in extractors.values() if each.reads == "image")}
        pictured = {f.name for f in brought if isinstance(f.made, Lookup) and f.made.of in images}
        pictured |= {f.name for f in brought if isinstance(f.made, Cosine) and pictured & {f.made.left, f.made.right}}
        return cls((*(replace(f, picture=f.name in pictured) for f in brought), *BUILT_IN))

    @property
    def groups(self) -> tuple[str, ...]:
        """The names by which features are switched, in table order."""
        return tuple(dict.fromkeys(feature.group for feature in self.features))

    @property
    def content_groups(self) -> tuple[str, ...]:
        """Groups made by the frozen models; all others are metadata."""
        return tuple(dict.fromkeys(feature.group for feature in self.features if feature.made is not None))

    @property
    def content_columns(self) -> tuple[str, ...]:
        """Columns made by the frozen models."""
        return tuple(feature.name for feature in self.features if feature.made is not None)

    def of_kind(self, kind: Kind) -> tuple[str, ...]:
        """Columns of one kind, in table order."""
        return tuple(feature.name for feature in self.features if feature.kind == kind)

    def columns_of(self, name: str) -> tuple[str, ...]:
        """Columns that belong to a group, or to the set `picture`, in table order.

        Args:
            name: A name of `groups`, or `picture`: every column that depends on the image, directly or through a text
                that was made of it.

        Raises:
            ConfigError: There is no such group.
        """
        if name == PICTURE:
            return tuple(feature.name for feature in self.features if feature.picture)
        if name not in self.groups:
            raise ConfigError(f"Unknown feature group '{name}'.", nearest(name, [*self.groups, PICTURE]))
        return tuple(feature.name for feature in self.features if feature.group == name)

    def selected(self, groups: Iterable[str] | None, without: Iterable[str] = ()) -> tuple[Feature, ...]:
        """Features of the named groups, less those of the groups left out.

        Args:
            groups: Names of `groups`; None means all.
            without: Groups, or `picture`, to leave out.
        """
        wanted = {column for group in (self.groups if groups is None else groups) for column in self.columns_of(group)}
        dropped = {column for group in without for column in self.columns_of(group)}
        return tuple(feature for feature in self.features if feature.name in wanted - dropped)

    def check(self, config: Config) -> None:
        """Refuse groups of the configuration that no feature is in.

        Raises:
            ConfigError: `features.groups` or `training.leave_out` names one; the nearest known name is told.
        """
        for setting, names, known in (
            ("features.groups", config.features.groups or (), self.groups),
            ("training.leave_out", config.training.leave_out, (*self.groups, PICTURE)),
        ):
            for name in names:
                if name not in known:
                    raise ConfigError(
                        f"Configuration key '{setting}': unknown feature group '{name}'.", nearest(name, known)
                    )


def _check_made(feature: Feature, extractors: Mapping[str, Describes], vectors: Set[str]) -> None:
    made = feature.made
    if isinstance(made, Lookup):
        for what, named, known in (
            ("computed by", made.extractor, tuple(extractors)),
            ("of", made.of, ("image", "title", *extractors)),
        ):
            if named not in known:
                raise ConfigError(
                    f"The feature '{feature.name}' is {what} '{named}', and there is no such extractor.",
                    nearest(named, known),
                )
    elif isinstance(made, Cosine):
        for side in (made.left, made.right):
            if side not in vectors:
                raise ConfigError(
                    f"The feature '{feature.name}' compares '{side}', and no vector is called that.",
                    nearest(side, sorted(vectors)),
                )
