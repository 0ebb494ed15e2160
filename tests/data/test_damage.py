"""Damaged files, false headers and files that are not regular raise one `DataError`.

They do so soon, and in little memory.
"""

import gzip
import io
import os
import socket
import struct
import tracemalloc
import zipfile
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

from jaxood.data import array_files, files, image_files
from jaxood.data.image_files import decode_image
from jaxood.data.images import DataError
from tests.data.helpers import noise, png, raises, read, write_idx, write_images

refused = partial(raises, read)


@pytest.fixture
def little_memory():
    """Assert that the test never uses more than 100 MB."""
    tracemalloc.start(1)
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


def outcomes(whole, function, right):
    """Flip each bit in turn: count the refusals, and assert that all other pixels are right."""
    refusals = 0
    for bit in range(8 * len(whole)):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            np.testing.assert_array_equal(function(bytes(broken)), right)
        except DataError:
            refusals += 1
    return refusals


# --------------------------------------------------------------------------------- the checksums


def test_each_flipped_bit_of_a_png_is_noticed(rng):
    image = noise(rng, 8, 8, 3)
    whole = png(image)
    assert outcomes(whole, lambda b: decode_image("a.png", b), image) == 8 * len(whole)


def test_each_flipped_bit_of_a_gzipped_idx_file_is_noticed_or_harmless(rng, tmp_path):
    images = noise(rng, 3, 5, 5)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    write_idx(path, images)
    whole = path.read_bytes()

    def load(broken):
        path.write_bytes(broken)
        return read(tmp_path)[0]

    refusals = outcomes(whole, load, images[..., None])
    assert refusals >= 8 * (len(whole) - 10 - len("t10k-images-idx3-ubyte"))  # all but the header


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_to_the_last_image_of_an_npz_is_noticed_before_the_first_is_read(
    rng, tmp_path, save
):
    path = tmp_path / "a.npz"
    images = noise(rng, 500, 8, 8, 3)  # much longer than the part that is read as the header
    save(path, x_test=images, y_test=np.arange(500))
    opened = files.open_images(path, "test")
    assert opened.random_access == (save is np.savez)
    for start in (400, 0, 20, 495):  # in any order
        np.testing.assert_array_equal(opened[start : start + 5], images[start : start + 5])
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("x_test.npy")
    broken = bytearray(path.read_bytes())
    broken[info.header_offset + info.compress_size] ^= 1
    path.write_bytes(broken)
    with pytest.raises(DataError, match=r"damaged \.npz file"):
        files.open_images(path, "test")


def test_random_access_is_true_where_reading_in_any_order_costs_the_same(rng, tmp_path):
    images = noise(rng, 3, 8, 8)
    np.save(tmp_path / "a.npy", images)
    write_idx(tmp_path / "plain/t10k-images-idx3-ubyte", images)
    write_idx(tmp_path / "zipped/t10k-images-idx3-ubyte.gz", images)
    write_images(tmp_path / "images", images[..., None])
    for name, free in {"a.npy": True, "plain": True, "zipped": False, "images": True}.items():
        assert files.open_images(tmp_path / name, "test").random_access == free


# ----------------------------------------------------------------------------- the false headers


def png_of(size, depth, color, pixels):
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0)]
    chunks += [b"IDAT" + zlib.compress(pixels), b"IEND"]
    framed = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def test_a_png_with_another_number_of_pixels_or_16_bits_is_refused():
    row = b"\0" + bytes(range(6))
    assert decode_image("a", png_of((2, 2), 8, 2, 2 * row)).shape == (2, 2, 3)
    for pixels in (row, 3 * row, 2 * row[:-1]):
        with pytest.raises(DataError, match="as many pixels as its header says"):
            decode_image("a", png_of((2, 2), 8, 2, pixels))
    for color, channels in [
        (0, 1),
        (2, 3),
        (4, 2),
        (6, 4),
    ]:  # Pillow would cut 16 bits in all but the first
        with pytest.raises(DataError, match="16 bits a channel"):
            decode_image("a", png_of((2, 2), 16, color, 2 * bytes(1 + 2 * 2 * channels)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_interlaced_pngs_of_every_depth_are_read(depth):
    # Pillow writes no such files. Here all pixels are 0, and their number is counted one by one.
    order = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    for width, height in [(1, 1), (2, 9), (5, 5), (9, 17)]:
        size = 0
        for x, y, right, down in [*order, (0, 1, 1, 2)]:
            columns, rows = len(range(x, width, right)), len(range(y, height, down))
            size += rows * (1 + (columns * depth + 7) // 8) if columns else 0
        encoded = bytearray(png_of((width, height), depth, 0, bytes(size)))
        encoded[28] = 1
        encoded[29:33] = struct.pack(">I", zlib.crc32(encoded[12:29]))
        assert not decode_image("a", bytes(encoded)).any()


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(little_memory):
    with pytest.raises(DataError, match="13000 x 13000 pixels are more"):
        decode_image("a.png", png_of((13_000, 13_000), 8, 0, bytes(10**6)))
    whole = png(np.zeros((8, 8, 1), np.uint8), format="JPEG")
    at = whole.index(b"\xff\xc0") + 5
    lie = whole[:at] + struct.pack(">HH", 5000, 5000) + whole[at + 4 :]
    with pytest.raises(DataError, match="5000 x 5000 pixels are more"):
        decode_image("a.jpg", lie)


def test_images_that_take_too_long_to_decode_are_refused(rng, monkeypatch):
    stream = io.BytesIO()
    Image.fromarray(noise(rng, 16, 16)).save(stream, "JPEG", progressive=True)
    whole = stream.getvalue()
    decode_image("a.jpg", whole)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    with pytest.raises(DataError, match="64 scans"):
        decode_image("a.jpg", whole[:-2] + 64 * last + whole[-2:])

    runs = 8 * (b"\x08\x01" + b"\0\0") + b"\0\1"  # eight lines of eight pixels of colour 1
    palette = bytes([0, 0, 0, 0, 7, 7, 7, 0])
    sizes = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(runs), 0, 0, 2, 0)
    bmp = struct.pack("<2sIII", b"BM", 62 + len(runs), 0, 62) + sizes + palette + runs
    assert (decode_image("a.bmp", bmp) == 7).all()
    monkeypatch.setattr(image_files, "_MOST_RUNS", len(bmp) - 1)
    with pytest.raises(DataError, match="run-length"):
        decode_image("a.bmp", bmp)
    monkeypatch.setattr(image_files, "_MOST_BYTES", len(bmp) - 1)
    with pytest.raises(DataError, match=r"more than \d+ bytes"):
        decode_image("a.bmp", bmp)


def npy_header(shape, dtype="|u1"):
    header = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def test_a_few_bytes_cannot_claim_more_images_than_they_hold(tmp_path, little_memory):
    claim = npy_header((10**12, 8, 8, 3)) + bytes(18_000)
    (tmp_path / "a.npy").write_bytes(claim)
    refused("192000000000000 bytes", "18000", path=tmp_path / "a.npy")
    for shape in [(-1, 8, 8), (-2, -1, 8, 8, 1), (2, 8, 8)]:
        (tmp_path / "a.npy").write_bytes(npy_header(shape) + bytes(100))
        refused("a.npy", path=tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x_test.npy", claim)
    refused("192000000000000 bytes", path=tmp_path / "a.npz")
    for sizes in [(2**31 - 1, 2**31 - 1, 2**31 - 1), (2**31 - 1, 28, 28), (-1, 28, 28), (1, 0, 0)]:
        head = struct.pack(">BBBBiii", 0, 0, 8, 3, *sizes)
        for suffix, content in [("", head), (".gz", gzip.compress(head))]:
            path = tmp_path / "idx" / f"t10k-images-idx3-ubyte{suffix}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            refused(path if min(sizes) > 0 else "no images", path=path.parent)
            path.unlink()


def test_zip_bombs_are_refused_unread(tmp_path, monkeypatch, little_memory):
    monkeypatch.setattr(array_files, "_MOST_IN_MEMORY", 2**20)
    np.savez_compressed(tmp_path / "a.npz", x_test=np.zeros((40, 256, 256, 1), np.uint8))
    refused("expand", "no photographs", path=tmp_path / "a.npz")
    write_idx(tmp_path / "idx/t10k-images-idx3-ubyte.gz", np.zeros((40, 256, 256), np.uint8))
    refused("expand", "no photographs", path=tmp_path / "idx")
    np.save(tmp_path / "f.npy", np.asfortranarray(np.zeros((40, 256, 256, 3), np.uint8)))
    refused("Fortran order", "ascontiguousarray", path=tmp_path / "f.npy")
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("x_test.npy", npy_header((1, 8, 8, 1)) + bytes(64))
    refused("another method", path=tmp_path / "b.npz")


def test_only_arrays_that_expand_two_hundredfold_are_zip_bombs(rng, tmp_path, monkeypatch):
    """Photographs of the sky, too, take few bytes for many pixels."""
    monkeypatch.setattr(array_files, "_MOST_IN_MEMORY", 2**10)
    images = np.zeros((64, 32, 32), np.uint8)
    images[:, :2] = noise(rng, 64, 2, 32)  # a sixteenth of the pixels cannot be compressed
    np.savez_compressed(tmp_path / "a.npz", images)
    np.testing.assert_array_equal(read(path=tmp_path / "a.npz")[0][..., 0], images)
    np.savez_compressed(tmp_path / "a.npz", np.zeros_like(images))
    refused("expand", "no photographs", path=tmp_path / "a.npz")
    monkeypatch.setattr(
        array_files, "_MOST_IN_MEMORY", images.nbytes + 128
    )  # 128 bytes for the header
    np.testing.assert_array_equal(read(path=tmp_path / "a.npz")[0], 0)


@pytest.mark.parametrize("behind", [b"", b"\0"])
def test_errors_behind_the_last_image_are_noticed_when_it_ends_with_a_chunk_of_reading(
    behind, tmp_path
):
    """The reader must go on after the last chunk: to the checksum and to surplus bytes."""
    place = tmp_path / "idx"
    name = place / "t10k-images-idx3-ubyte.gz"
    write_idx(name, np.zeros((array_files._AT_ONCE // 1024, 32, 32), np.uint8))
    assert len(read(path=place)[0]) == array_files._AT_ONCE // 1024
    if behind:
        name.write_bytes(gzip.compress(gzip.decompress(name.read_bytes()) + behind))
    else:
        whole = bytearray(name.read_bytes())
        whole[-8] ^= 1  # a bit of the checksum
        name.write_bytes(whole)
    refused("damaged idx file", path=place)


@pytest.mark.parametrize("head", [b"\0\0\x07", b"\0\0\x09", b"\0\1\x08"])
def test_an_idx_file_of_another_type_is_refused(head, rng, tmp_path):
    path = tmp_path / "t10k-images-idx3-ubyte"
    write_idx(path, noise(rng, 3, 8, 8))
    path.write_bytes(head + path.read_bytes()[3:])
    refused("damaged idx file", path=tmp_path)


def test_bytes_behind_an_array_are_refused(rng, tmp_path):
    images = noise(rng, 3, 8, 8)
    np.save(tmp_path / "a.npy", images)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", images)
    write_idx(tmp_path / "z/t10k-images-idx3-ubyte.gz", images)
    for name in ("a.npy", "t10k-images-idx3-ubyte", "z/t10k-images-idx3-ubyte.gz"):
        with (tmp_path / name).open("ab") as file:
            file.write(gzip.compress(b"x") if name.endswith("gz") else b"x")
        path = tmp_path / name
        refused(path, "damaged", path=path if path.suffix == ".npy" else path.parent)


def test_labels_that_do_not_fit_are_refused_unread(rng, tmp_path, little_memory):
    path = tmp_path / "a.npz"
    images = noise(rng, 3, 8, 8)
    np.savez(path, x_test=images, y_test=np.array([0, 1, 2**63], np.uint64))
    refused("label", "9223372036854775808", "int64", path=path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_test.npy", npy_header((3, 8, 8)) + images.tobytes())
        archive.writestr("y_test.npy", npy_header((10**12,), "<i8"))
    refused("labels are int64 of shape (1000000000000,) for 3 images", path=path)
    write_idx(tmp_path / "idx/t10k-images-idx3-ubyte", images)
    for labels in (np.zeros(4, np.uint8), np.zeros((3, 1), np.uint8)):
        write_idx(tmp_path / "idx/t10k-labels-idx1-ubyte.gz", labels)
        refused("labels", str(labels.shape), "3 images", path=tmp_path / "idx")
    head = struct.pack(">BBBBi", 0, 0, 8, 1, 3)
    for content in (head + b"12", head + b"1234"):
        (tmp_path / "idx/t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content))
        refused("labels-idx1-ubyte.gz", "damaged", path=tmp_path / "idx")


# --------------------------------------------------------------- the files that are not regular


def test_pipes_sockets_and_devices_are_never_opened(rng, tmp_path, monkeypatch):
    folder = tmp_path / "set"
    write_images(folder, noise(rng, 2, 8, 8, 3))
    os.mkfifo(folder / "pipe.png")
    monkeypatch.chdir(folder)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "circle.png").symlink_to("circle.png")
    (folder / "nowhere.png").symlink_to("nothing")
    opened = files.open_images(folder, "test")
    assert opened.names == ["000.png", "001.png"]
    names = ["circle.png", "device.png", "nowhere.png", "pipe.png", "socket.png"]
    assert opened.skipped == names
    for name in ("pipe.npz", "pipe.npy"):
        os.mkfifo(tmp_path / name)
        refused(name, "not a regular file", path=tmp_path / name)
    (folder / "001.png").unlink()
    os.mkfifo(folder / "001.png")  # it was a regular file when the folder was listed
    assert "not a regular file" in opened.examine(slice(0, 2))[1][1]


def test_a_link_to_an_enclosing_folder_is_not_followed(rng, tmp_path):
    write_images(tmp_path / "set" / "cat", noise(rng, 2, 8, 8, 3))
    (tmp_path / "set" / "cat" / "back").symlink_to(tmp_path / "set")
    opened = files.open_images(tmp_path / "set", "test")
    assert (len(opened), opened.skipped) == (2, ["cat/back/"])
    assert files.holds_images(tmp_path / "set")


def test_a_folder_that_may_not_be_read_is_named(rng, tmp_path, monkeypatch):
    write_images(tmp_path / "set" / "cat", noise(rng, 1, 8, 8, 3))
    locked = tmp_path / "set" / "dog"
    locked.mkdir()
    scandir = os.scandir

    def scan(path):
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    refused(locked, "cannot be read", "PermissionError", path=tmp_path / "set")


# ------------------------------------------------------------------------ the names and palettes


def test_file_names_are_kept_as_they_are_and_messages_can_be_printed(rng, tmp_path):
    images = noise(rng, 4, 8, 8, 1)
    raw = [b"+1.png", b"=cmd.png", b"a\nb\x1b[31m.png", b"caf\xe9.png"]
    for name, image in zip(raw, images, strict=True):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(png(image))
    opened = files.open_images(tmp_path, "test")
    assert opened.names is not None and [os.fsencode(name) for name in opened.names] == raw
    np.testing.assert_array_equal(opened[0:4], images)
    for name in opened.names[2:]:
        (tmp_path / name).write_bytes(b"")
    reasons = opened.examine(slice(0, 4))[1]
    assert r"a\nb\x1b[31m.png" in reasons[2] and r"caf\udce9.png" in reasons[3]
    assert all(reason.isprintable() for reason in reasons.values())


def test_transparency_is_dropped_from_palettes_without_a_warning(tmp_path):
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    image.save(tmp_path / "a.png", transparency=bytes([0, 128]))
    np.testing.assert_array_equal(read(tmp_path)[0][0], np.full((8, 8, 3), (9, 8, 7)))
