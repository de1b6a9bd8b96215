"""Pictures as people have them: grey, transparent, turned, cut off, huge, thin; what comes in is RGB or an error."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from pipelines.image_input import (
    as_rgb,
    check_image,
    check_images,
    fit_image,
    image_pixels,
    nearest_bucket,
    open_image,
)


def noise(width=20, height=12, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


def test_moving_pictures_and_too_many_pixels_are_refused_before_they_are_decoded(tmp_path):
    frames = [noise(), noise().rotate(180)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(ValueError, match="image: mine.gif is a moving picture"):
        open_image(tmp_path / "a.gif", name="mine.gif")
    for suffix in ("webp", "png", "avif"):
        frames[0].save(tmp_path / f"b.{suffix}", save_all=True, append_images=frames[1:])
        with pytest.raises(ValueError, match="is a moving picture"):
            open_image(tmp_path / f"b.{suffix}")
    frames[0].save(tmp_path / "pages.tiff", save_all=True, append_images=frames[1:])
    assert (np.asarray(open_image(tmp_path / "pages.tiff")) == np.asarray(frames[0])).all()
    noise(2000, 1100).save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("rb") as file, pytest.raises(ValueError, match="more than 2 megapixels"):
        open_image(file, max_pixels=2 << 20)
    noise().save(tmp_path / "still.gif")
    assert open_image(tmp_path / "still.gif").size == (20, 12)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_files_come_in_as_rgb(tmp_path, suffix):
    noise().save(tmp_path / f"a.{suffix}")
    image = open_image(tmp_path / f"a.{suffix}")
    assert image.mode == "RGB" and image.size == (20, 12)
    assert suffix == "jpg" or suffix == "webp" or image.tobytes() == noise().tobytes()


def test_grey_becomes_rgb(tmp_path):
    grey = noise(channels=1)
    grey.save(tmp_path / "grey.png")
    pixels = np.asarray(open_image(tmp_path / "grey.png"))
    assert np.array_equal(pixels, np.repeat(np.asarray(grey)[..., None], 3, axis=2))


def half_transparent(mode):
    """Left half transparent black, right half opaque grey 200, in one of Pillow's modes."""
    picture = Image.new("RGBA", (16, 16), (200, 200, 200, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 8, 16))
    if mode == "RGBA":
        return picture
    if mode == "LA":
        return picture.convert("LA")
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([0, 0, 0, 200, 200, 200])
    palette.paste(0, (0, 0, 8, 16))
    palette.info["transparency"] = 0
    return palette


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_are_white(tmp_path, mode):
    picture = half_transparent(mode)
    picture.save(tmp_path / "a.png")
    for image in (as_rgb(picture), open_image(tmp_path / "a.png")):
        pixels = np.asarray(image)
        assert image.mode == "RGB" and (pixels[:, :8] == 255).all() and (pixels[:, 8:] == 200).all()


def test_a_turned_photo_is_set_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    noise(20, 12).save(tmp_path / "photo.png", exif=exif)
    image = open_image(tmp_path / "photo.png")
    assert image.size == (12, 20)
    assert image.tobytes() == noise(20, 12).transpose(Image.Transpose.ROTATE_270).tobytes()


@pytest.mark.parametrize("name", ["missing.png", "", "text.png", "empty.png", "cut.png", "cut.jpg"])
def test_what_is_no_picture_is_named(tmp_path, name):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    for suffix in ("png", "jpg"):
        noise(64, 64).save(tmp_path / f"whole.{suffix}")
        (tmp_path / f"cut.{suffix}").write_bytes((tmp_path / f"whole.{suffix}").read_bytes()[:900])
    remedy = "save it as PNG or JPEG" if name and name != "missing.png" else "check the path"
    with pytest.raises(ValueError, match=f"image: .*{remedy}"):
        open_image(tmp_path / name)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [8200, 9600, 20000])
def test_huge_files_are_refused_unread(tmp_path, side):
    path = tmp_path / "huge.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(ValueError, match="more than 64 megapixels; resize it first"):
        open_image(path)


RAMP = np.tile(np.array([0, 4, 32, 130, 255], np.uint16), (8, 4))


def written(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(kind):
    deep = Image.fromarray(RAMP * 257)
    assert (np.asarray(open_image(written(deep, kind))) == RAMP[..., None]).all()
    assert (np.asarray(check_image(deep)) == RAMP[..., None]).all()
    between = Image.fromarray(RAMP * 257 - np.minimum(RAMP, 100))
    assert (np.asarray(open_image(written(between, kind))) == RAMP[..., None]).all()


def test_deep_tiffs_whose_white_is_another_number():
    inverted = Image.fromarray(65535 - RAMP * 257)
    assert (np.asarray(open_image(written(inverted, "TIFF", tiffinfo={262: 0}))) == RAMP[..., None]).all()


def test_transparent_sixteen_bits_are_white():
    deep = written(Image.fromarray(RAMP * 257), "PNG", transparency=4 * 257)
    assert (np.asarray(open_image(deep))[0, :5, 0] == [0, 255, 32, 130, 255]).all()


def test_floats_are_right_or_refused():
    unit = Image.fromarray((RAMP / 255).astype(np.float32))
    assert (np.asarray(open_image(written(unit, "TIFF"))) == RAMP[..., None]).all()
    for numbers in (RAMP.astype(np.float32), np.full((8, 8), np.nan, np.float32), unit.point(lambda x: x * 1 - 1)):
        image = numbers if isinstance(numbers, Image.Image) else Image.fromarray(numbers)
        with pytest.raises(ValueError, match="image: its floating-point numbers are not within 0..1"):
            open_image(written(image, "TIFF"))
    with pytest.raises(ValueError, match="image: mode I, 32-bit numbers of unknown range"):
        open_image(written(Image.fromarray(RAMP.astype(np.int32)), "TIFF"))


def test_arrays_and_tensors_as_diffusers_takes_them():
    picture = noise()
    pixels = np.asarray(picture)
    tensor = torch.from_numpy(pixels.copy()).movedim(2, 0)
    kinds = [pixels, pixels[None], pixels.astype(np.uint16) * 257, pixels / 255, (pixels / 255).astype(np.float32)]
    kinds += [tensor, tensor[None], tensor / 255, tensor / 127.5 - 1, (tensor / 255).requires_grad_()]
    kinds += [np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])]
    for kind in kinds:
        assert (np.asarray(check_image(kind)) == pixels).all()
    assert (np.asarray(check_image((tensor / 255).half())) - pixels.astype(int) <= 1).all()
    grey = np.repeat(pixels[..., :1], 3, axis=2)
    for kind in (pixels[..., 0], pixels[..., :1], tensor[0], tensor[:1]):
        assert (np.asarray(check_image(kind)) == grey).all()
    clear = np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)])
    assert (np.asarray(check_image(clear)) == 255).all()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 8, 2)), r"ndarray of shape \[8, 8, 2\] and float64; use \[H, W, C\] with C = 1, 3 or 4"),
        (torch.zeros(8, 8, 3), r"Tensor of shape \[8, 8, 3\] and torch.float32; use \[C, H, W\]"),
        (np.zeros(8), r"shape \[8\]"),
        (np.full((8, 8), 128.0), "outside of 0..1"),
        (np.full((8, 8), np.nan), "outside of 0..1"),
        (np.zeros((8, 8), np.int32), "use uint8, uint16, or floats in 0..1"),
        (np.zeros((8, 8), bool), "use uint8"),
        (np.zeros((3, 8, 8, 3)), r"shape \[3, 8, 8, 3\]"),
        (np.zeros((4, 8, 3), np.uint8), "8 x 4 is too small"),
    ],
)
def test_other_arrays_are_refused(array, message):
    with pytest.raises(ValueError, match=f"image: .*{message}"):
        check_image(array)


def test_check_image(tmp_path):
    image = noise()
    assert check_image(image) is image
    with pytest.raises(ValueError, match="got int; give a PIL picture, a path, an array or a tensor"):
        check_image(7)
    with pytest.raises(ValueError, match="7 x 12 is too small; use at least 8 x 8 pixels"):
        check_image(noise(7))
    with pytest.raises(ValueError, match="mode La cannot be made RGB"):
        check_image(Image.new("La", (8, 8)))
    noise(64, 64).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    with pytest.raises(ValueError, match="the file is damaged or cut off"):
        check_image(Image.open(tmp_path / "cut.png"))


def test_turned_pictures_are_turned_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(20, 12).save(tmp_path / "photo.png", exif=exif)
    upright = noise(20, 12).transpose(Image.Transpose.ROTATE_270).tobytes()
    once = check_image(Image.open(tmp_path / "photo.png"))
    for image in (once, check_image(once), check_image(Image.open(tmp_path / "photo.png").convert("RGB"))):
        assert image.size == (12, 20) and image.tobytes() == upright


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_are_pillows_own(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = Image.open(written(noise(), "PNG", exif=exif))
    assert check_image(photo).tobytes() == ImageOps.exif_transpose(photo).tobytes()


def test_photos_of_phones(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    Image.new("RGB", (64, 48), (200, 30, 90)).save(tmp_path / "a.heic")
    image = open_image(tmp_path / "a.heic")
    assert image.size == (64, 48) and np.abs(np.asarray(image).astype(int) - (200, 30, 90)).max() < 12


def test_one_picture_or_many():
    picture = noise()
    pixels = np.asarray(picture)
    assert [len(check_images(kind)) for kind in (picture, [picture], (picture, pixels), np.stack([pixels] * 3))] == [
        1,
        1,
        2,
        3,
    ]
    for empty in ([], ()):
        with pytest.raises(ValueError, match="image: the list is empty"):
            check_images(empty)


def test_nearest_bucket():
    buckets = [[480, 368], [400, 400], [368, 480], [368, 640], [640, 368]]
    assert nearest_bucket(1000, 1000, buckets) == (400, 400)
    assert nearest_bucket(1920, 1080, buckets) == (368, 640)
    assert nearest_bucket(1080, 1920, buckets) == (640, 368)
    assert nearest_bucket(1024, 768, buckets) == (368, 480)


def test_fit_covers_and_keeps_the_middle():
    picture = Image.new("RGB", (300, 100), (255, 0, 0))
    picture.paste((0, 0, 255), (100, 0, 200, 100))
    fitted = np.asarray(fit_image(picture, 50, 50))
    assert fitted.shape == (50, 50, 3) and np.abs(fitted[:, 5:-5].astype(int) - (0, 0, 255)).max() < 6
    same = noise(32, 32)
    assert fit_image(same, 32, 32) is same
    assert fit_image(noise(20, 12), 64, 48).size == (48, 64)


@pytest.mark.parametrize("size", [(8, 100_000), (100_000, 8)])
def test_thin_pictures_cost_no_memory(size):
    assert fit_image(Image.new("RGB", size), 128, 128).size == (128, 128)


def test_pixels():
    image = noise()
    pixels = image_pixels(image)
    assert pixels.shape == (1, 3, 1, 12, 20) and pixels.min() >= -1 and pixels.max() <= 1
    back = ((pixels[0, :, 0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    assert np.array_equal(back, np.asarray(image))
