"""The CSV file of results keeps what is written to it and refuses what does not fit it."""

import csv
import json
import os

import numpy as np
import pytest

from jaxood import data, detector, stream
from jaxood.integrity import Changed, Locked
from tests.data.helpers import noise, write_images
from tests.helpers import TinyScore
from tests.test_stream import brightness


@pytest.fixture
def judge_brightness(rng):
    return detector.fit(brightness, noise(rng, 99, 4, 4, 1))


def test_names_of_files_survive_whatever_is_in_them(rng, tmp_path, judge_brightness):
    folder = tmp_path / "new"
    write_images(folder, noise(rng, 1, 4, 4, 1))
    names = [
        'a,"b".png',
        "line\nbreak.png",
        os.fsdecode(b"\xff.png"),
        "é.png",
        "=1+1.png",
        "-a.png",
    ]
    names += [
        "+a.png",
        "@a.png",
        "\x1b[31mred.png",
        "back\\slash\\n.png",
        "\u202egnp.a.png",
        "'.png",
    ]
    for name in names:
        (folder / name).write_bytes((folder / "000.png").read_bytes())
    images = data.open(folder)
    for _ in range(2):  # the second time the results are found complete
        stream.judge(judge_brightness, images, tmp_path / "scores.csv")
        found = [row.file for row in stream.rows(tmp_path / "scores.csv")]
        assert found == sorted(["000.png", *names])
    text = (tmp_path / "scores.csv").read_bytes().decode()
    assert all(character.isprintable() for line in text.split("\n") for character in line)
    assert not [row for row in csv.reader(text.splitlines()) if row[1][:1] in ("=", "+", "-", "@")]


def test_results_of_something_else_are_refused_and_kept(rng, tmp_path, judge_brightness):
    pixels = noise(rng, 9, 4, 4, 1)
    write_images(tmp_path / "new", pixels)
    write_images(tmp_path / "other", pixels, suffix="b.png")
    images, path = data.open(tmp_path / "new"), tmp_path / "scores.csv"
    path.write_text("years of work\n")
    with pytest.raises(ValueError, match="not a file of results"):
        stream.judge(judge_brightness, images, path)
    assert path.read_text() == "years of work\n"
    path.unlink()
    stream.judge(judge_brightness, images, path, set_size=4)
    whole = path.read_bytes()
    kept = json.loads((tmp_path / "scores.csv.json").read_text())
    assert kept["images"] == [9, 4, 4, 1] and kept["set size"] == 4
    assert {len(row.digest) for row in stream.rows(path)} == {16}
    another = detector.fit(brightness, noise(rng, 99, 4, 4, 1))
    swapped = detector.fit(
        TinyScore(lambda x: 1.001 * brightness(x)), noise(np.random.default_rng(0), 99, 4, 4, 1)
    )
    for judge, options, why in (
        (another, {}, "detector"),
        (swapped, {}, "detector"),
        (judge_brightness, {"set_size": 5}, r"set size .4, now 5."),
        (judge_brightness, {"false_positive_rate": 0.1}, r"false-positive rate .0.05, now 0.1."),
        (judge_brightness, {"seed": 1}, r"seed .0, now 1."),
    ):
        with pytest.raises(Changed, match=why):
            stream.judge(judge, images, path, **{"set_size": 4, **options})
    with pytest.raises(Changed, match=r"line 2 of .* is not that of image 0 \(000b.png\)"):
        stream.judge(judge_brightness, data.open(tmp_path / "other"), path, set_size=4)
    pixels[6, 0, 0] ^= 1
    write_images(tmp_path / "new", pixels)  # these have other pixels under the same names
    with pytest.raises(Changed, match=r"line 8 of .* is not that of image 6 \(006.png\)"):
        stream.judge(judge_brightness, images, path, set_size=4)
    np.save(tmp_path / "fewer.npy", pixels[:8])
    with pytest.raises(Changed, match="images"):
        stream.judge(judge_brightness, data.open(tmp_path / "fewer.npy"), path, set_size=4)
    assert path.read_bytes() == whole


def test_a_flipped_bit_in_the_results_is_refused_or_mended(rng, tmp_path, judge_brightness):
    """The bit lies anywhere in the file or in the file beside it; a torn end is scored again."""
    write_images(tmp_path / "new", noise(rng, 6, 4, 4, 1))
    images, path = data.open(tmp_path / "new"), tmp_path / "scores.csv"
    beside = tmp_path / "scores.csv.json"
    stream.judge(judge_brightness, images, path, set_size=2)
    whole, settings = path.read_bytes(), beside.read_bytes()
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole + settings)
        place = rng.integers(len(damaged))
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged[: len(whole)])
        beside.write_bytes(damaged[len(whole) :])
        before = path.read_bytes(), beside.read_bytes()
        try:
            stream.judge(judge_brightness, images, path, set_size=2)
        except ValueError as error:
            assert "\n" not in str(error)
            assert (path.read_bytes(), beside.read_bytes()) == before
            refused += 1
        else:
            assert path.read_bytes() == whole
    assert refused > 180


def test_two_at_once_on_one_file_are_refused(rng, tmp_path):
    np.save(tmp_path / "new.npy", noise(rng, 20, 4, 4, 1))
    images, path = data.open(tmp_path / "new.npy"), tmp_path / "scores.csv"
    refusals = []

    def score(x):
        if len(x) == 4:
            with pytest.raises(Locked, match=r"another process writes to .*scores\.csv"):
                stream.judge(judge_alone, images, path, set_size=4)
            refusals.append(path.read_bytes())
        return brightness(x)

    trusted = noise(rng, 99, 4, 4, 1)
    judge_alone = detector.fit(brightness, trusted)
    stream.judge(detector.fit(TinyScore(score), trusted), images, path, set_size=4)
    assert len(refusals) == 5
    stream.judge(judge_alone, images, tmp_path / "alone.csv", set_size=4)
    assert path.read_bytes() == (tmp_path / "alone.csv").read_bytes()


def test_summary(tmp_path):
    """The summary equals one that is made from all rows at once."""
    path, n = tmp_path / "scores.csv", 1000
    values = np.random.default_rng(0).permutation(n)
    lines = [f"{i},,,{v},{(n - v) / n:.6g},{v >= 900:d},,\n" for i, v in enumerate(values)]
    path.write_text("index,file,set,score,p_value,reported,reason,digest\n" + "".join(lines))
    found = stream.summary(path, suspects=10, scores=99)
    assert (found.images, found.reported, found.sets, found.known) == (1000, 100, 0, 0)
    assert [row.score for row in found.suspects] == list(range(999, 989, -1))
    assert 50 <= len(found.scores) <= 99
    np.testing.assert_array_equal(found.scores, values[:: n // len(found.scores) + 1])


def test_a_summary_lists_no_more_than_it_is_asked_for(tmp_path):
    path = tmp_path / "scores.csv"
    reasons = ["a broken image", "zero bytes", "zero bytes", stream.results.KNOWN]
    assert reasons[0] < stream.results.KNOWN < reasons[1]
    lines = [f"{i},{i}.png,,,,0,{reason},\n" for i, reason in enumerate(reasons)]
    lines += [f"{i},{i}.png,,{i},0.5,0,,\n" for i in range(4, 14)]
    path.write_text("index,file,set,score,p_value,reported,reason,digest\n" + "".join(lines))
    found = stream.summary(path, suspects=2, scores=10)
    assert (found.images, found.damaged, found.known) == (10, 3, 1)
    assert [row.file for row in found.unread] == ["0.png", "1.png"]
    np.testing.assert_array_equal(found.scores, np.arange(4, 14))
    np.testing.assert_array_equal(stream.summary(path, scores=9).scores, np.arange(4, 14, 2))
    assert len(stream.summary(path, suspects=3).unread) == 3
    assert len(stream.summary(path).unread) == 3


def test_of_equal_scores_the_first_images_are_the_suspects(tmp_path):
    path = tmp_path / "scores.csv"
    lines = [f"{i},,,{i % 2},0.01,1,,\n" for i in range(10)]
    path.write_text("index,file,set,score,p_value,reported,reason,digest\n" + "".join(lines))
    found = stream.summary(path, suspects=7)
    assert [row.index for row in found.suspects] == [1, 3, 5, 7, 9, 0, 2]
