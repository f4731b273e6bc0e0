"""Draws the made-up users and posts as plain arrays; nothing is written here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smp_features.demo import formula
from smp_features.demo.formula import Effects, Floats, Integers
from smp_features.demo.scenes import COLOUR_NAMES, MAX_BIRDS, OBJECTS, PLACE_NAMES, Scene
from smp_features.demo.vocabulary import CATEGORY_NAMES, TIME_ZONES

Flags = NDArray[np.bool_]

FIRST_SECOND = 1_425_168_000  # 2015-03-01 UTC
LAST_SECOND = 1_467_331_200  # 2016-07-01 UTC, sixteen months later
TEST_SHARE = 0.28
UNSEEN_SHARE = 0.64
POSTS_PER_USER = 3.0
ACCOUNT_AGE_YEARS = (0.3, 9.0)  # before the first post of the data set
BROKEN_SHARE = 0.01
INTACT, ZERO_BYTES, TRUNCATED, HTML, MISSING = range(5)
BROKEN_NAMES = {ZERO_BYTES: "zero_bytes", TRUNCATED: "truncated", HTML: "html", MISSING: "missing_file"}
REPOSTED_SHARE = 0.02  # pictures that appear again, half of them under the same title
POPULATION_STREAM = 1


@dataclass(frozen=True)
class Users:
    """Per-user arrays of shape (users,). ``first_date_hidden``: the files say ``None`` for photo_firstdate."""

    number: Integers
    photo_count: Integers
    is_pro: Integers
    can_buy_pro: Integers
    first_date: Integers
    first_date_hidden: Flags
    first_date_taken: Integers
    time_zone: Integers
    has_alias: Flags
    has_profile_text: Flags
    followers: Integers
    followings: Integers
    in_additional: Flags


@dataclass(frozen=True)
class Posts:
    """Per-post arrays of shape (posts,); the first ``train`` rows are the train rows, in no meaningful order.

    ``scene_id`` and ``title_id`` seed the rendering and the wording: posts that share one share the bytes.
    """

    train: int
    pid: Integers
    user: Integers
    event_time: Integers
    category: Integers
    scene_id: Integers
    shape: Integers
    colour: Integers
    place: Integers
    birds: Integers
    title_id: Integers
    title_kind: Integers
    image_fault: Integers
    has_place: Flags
    effects: Effects
    views: Integers
    expectation: Floats

    def __len__(self) -> int:
        return len(self.pid)

    def scene(self, row: int) -> Scene:
        """Return what the picture of a row shows."""
        return Scene(
            OBJECTS[self.shape[row]],
            COLOUR_NAMES[self.colour[row]],
            PLACE_NAMES[self.place[row]],
            int(self.birds[row]),
        )


def draw(posts: int, seed: int) -> tuple[Users, Posts]:
    """Draw users and posts with their popularity.

    Args:
        posts: Number of posts, train and test together.
        seed: The same seed gives the same arrays.
    """
    rng = np.random.default_rng([seed, POPULATION_STREAM])
    test = round(posts * TEST_SHARE)
    train = posts - test
    unseen = round(test * UNSEEN_SHARE)
    user = _assign_users(rng, train, test - unseen, unseen)
    users = _draw_users(rng, int(user.max()) + 1)

    split_second = FIRST_SECOND + round((LAST_SECOND - FIRST_SECOND) * (1 - TEST_SHARE))
    event_time = np.concatenate(
        [rng.integers(FIRST_SECOND, split_second, train), rng.integers(split_second, LAST_SECOND, test)]
    )
    favourite = rng.integers(0, len(CATEGORY_NAMES), len(users.number))
    own_taste = rng.random(posts) < 0.4
    category = np.where(own_taste, favourite[user], rng.integers(0, len(CATEGORY_NAMES), posts))

    content = _draw_content(rng, posts)
    effects = _draw_effects(rng, users, user, event_time, category, content)
    views = formula.views_of(effects.total())
    fault = _draw_faults(rng, posts)
    expectation = _expectation(effects, users, user, event_time, content["title_kind"], fault)
    order = rng.permutation(posts)  # public numbers in an order of their own, so that they tell nothing
    drawn = Posts(
        train=train,
        pid=10_000 + 37 * order + rng.integers(0, 37, posts),
        user=user,
        event_time=event_time,
        category=category,
        image_fault=fault,
        has_place=rng.random(posts) < 0.3,
        effects=effects,
        views=views,
        expectation=expectation,
        **content,
    )
    return users, drawn


def _assign_users(rng: np.random.Generator, train: int, seen: int, unseen: int) -> Integers:
    train_mean = POSTS_PER_USER * train / (train + seen)  # they get their test posts on top
    train_users = _fill(rng, train, train_mean)
    seen_users = int(train_users.max()) + 1
    test_users = np.concatenate([rng.integers(0, seen_users, seen), seen_users + _fill(rng, unseen, POSTS_PER_USER)])
    return np.concatenate([rng.permutation(train_users), rng.permutation(test_users)])


def _fill(rng: np.random.Generator, posts: int, mean: float) -> Integers:
    """Return a user index for each of so many posts, with geometric numbers of posts per user."""
    sizes = rng.geometric(1 / mean, size=posts)
    return np.repeat(np.arange(posts), sizes)[:posts]


def _draw_users(rng: np.random.Generator, users: int) -> Users:
    standing = rng.normal(size=users)
    photo_count = np.rint(
        np.expm1(np.clip(formula.PHOTO_COUNT_LOG_MEAN + formula.PHOTO_COUNT_LOG_SD * standing, 0, 12.5))
    ).astype(np.int64)
    age = rng.uniform(*ACCOUNT_AGE_YEARS, users) * formula.YEAR_SECONDS
    first_date = (FIRST_SECOND - age).astype(np.int64)
    is_pro = (rng.random(users) < formula.PRO_SHARE).astype(np.int64)
    return Users(
        number=1_000 + 7 * rng.permutation(users) + rng.integers(0, 7, users),
        photo_count=photo_count,
        is_pro=is_pro,
        can_buy_pro=1 - is_pro,
        first_date=first_date,
        first_date_hidden=rng.random(users) < 0.03,
        first_date_taken=first_date - rng.integers(0, 3 * 365 * 86400, users),
        time_zone=rng.integers(0, len(TIME_ZONES), users),
        has_alias=rng.random(users) >= 0.06,
        has_profile_text=rng.random(users) < 0.4,
        followers=np.rint(np.exp(4.5 + 0.9 * standing + rng.normal(0, 0.7, users))).astype(np.int64),
        followings=np.rint(np.exp(rng.normal(4.0, 1.0, users))).astype(np.int64),
        in_additional=rng.random(users) < 0.9,
    )


def _draw_content(rng: np.random.Generator, posts: int) -> dict[str, Integers]:
    shares = [0.0, formula.INCONSISTENT_SHARE, formula.GIBBERISH_SHARE, formula.CAMERA_SHARE, formula.EMPTY_SHARE]
    shares[0] = 1 - sum(shares)
    content = {
        "scene_id": np.arange(posts),
        "shape": rng.integers(0, len(OBJECTS), posts),
        "colour": rng.integers(0, len(COLOUR_NAMES), posts),
        "place": rng.integers(0, len(PLACE_NAMES), posts),
        "birds": rng.integers(0, MAX_BIRDS + 1, posts),
        "title_id": np.arange(posts),
        "title_kind": rng.choice(len(shares), size=posts, p=shares),
    }
    again = max(2, round(posts * REPOSTED_SHARE))
    chosen = rng.permutation(posts)[: 2 * again]
    copies, originals = chosen[:again], chosen[again:]
    for name in ("scene_id", "shape", "colour", "place", "birds"):
        content[name][copies] = content[name][originals]
    same_title = copies[: again // 2]
    for name in ("title_id", "title_kind"):
        content[name][same_title] = content[name][originals[: again // 2]]
    return content


def _draw_effects(
    rng: np.random.Generator,
    users: Users,
    user: Integers,
    event_time: Integers,
    category: Integers,
    content: dict[str, Integers],
) -> Effects:
    hidden = rng.normal(0, np.sqrt(formula.HIDDEN_USER_VARIANCE), len(users.number))
    residual = rng.normal(0, np.sqrt(formula.RESIDUAL_VARIANCE), len(user))
    return Effects(
        user=formula.standing_effect(users.photo_count[user], users.is_pro[user])
        + formula.age_effect(_account_age(users, user, event_time)),
        picture=formula.picture_effect(content["place"], content["birds"]),
        title=formula.title_effect(content["title_kind"]),
        time_category=formula.time_category_effect(event_time, category),
        noise=hidden[user] + residual,
    )


def _account_age(users: Users, user: Integers, event_time: Integers) -> Floats:
    return (event_time - users.first_date[user]) / formula.YEAR_SECONDS


def _expectation(
    effects: Effects, users: Users, user: Integers, event_time: Integers, title_kind: Integers, fault: Integers
) -> Floats:
    """Return the score expected from what the files show; hidden user effects and broken pictures are not shown."""
    hidden_age = np.where(users.first_date_hidden[user], formula.age_effect(_account_age(users, user, event_time)), 0.0)
    seen = fault == INTACT
    picture = np.where(seen, effects.picture, 0.0)
    title = np.where(seen, effects.title, formula.expected_title_effect_without_picture(title_kind))
    expected = formula.MEAN_SCORE + effects.user - hidden_age + picture + title + effects.time_category
    return np.maximum(expected, 1.0)


def _draw_faults(rng: np.random.Generator, posts: int) -> Integers:
    fault = np.zeros(posts, dtype=np.int64)
    broken = rng.permutation(posts)[: max(len(BROKEN_NAMES), round(posts * BROKEN_SHARE))]
    fault[broken] = np.arange(len(broken)) % len(BROKEN_NAMES) + 1
    return fault
