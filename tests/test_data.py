"""Finding, verifying, parsing and splitting the data set."""

import gzip
import hashlib
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fmnist import data
from fmnist.errors import BadInput
from fmnist.schema import DataConfig

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = data.SHA256


def idx(array: np.ndarray, dtype: int = 0x08, zeros: int = 0) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", zeros, dtype, array.ndim, *array.shape) + array.tobytes()


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def labels(count: int) -> np.ndarray:
    return (np.arange(count) % 10).astype(np.uint8)


def make_set(directory: Path, count: int = 20, suffix: str = ".gz") -> Path:
    """Write a small data set of MNIST's layout that is not Fashion-MNIST."""
    directory.mkdir(exist_ok=True)
    for name in data.SHA256:
        content = idx(images(count) if "images" in name else labels(count))
        (directory / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return directory


def items(*parts: data.Images) -> list[bytes]:
    """Every image with its label, sorted: equal for equal multisets of images."""
    return sorted(
        image.tobytes() + bytes([label])
        for part in parts
        for image, label in zip(part.images, part.labels, strict=True)
    )


def files_in(directory: Path) -> set[str]:
    """Every file there, hidden ones too: an interrupted atomic write would leave one."""
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


@pytest.fixture
def keras_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own chain of sources that are all empty and cannot download; returns the Keras cache's folder in it."""
    keras_home = tmp_path / "keras"
    monkeypatch.delenv("FMNIST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(keras_home))
    monkeypatch.setattr(data, "SYSTEM", tmp_path / "system")
    # Nothing listens on the discard port, so every download is refused at once; without PATH there is no apt-get.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", str(tmp_path))
    return keras_home / "datasets" / "fashion-mnist"


def test_reads_the_genuine_set(data_dir: Path) -> None:
    test, source = data.load_test(data_dir)
    assert test.images.shape == (10000, 28, 28)
    assert test.images.dtype == test.labels.dtype == np.uint8
    assert test.images.flags.c_contiguous
    assert test.images.flags.writeable
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert (source.name, source.is_fashion_mnist) == ("Fashion-MNIST", True)
    assert source.sha256 == {name: data.SHA256[name] for name in (TEST_IMAGES, TEST_LABELS)}
    assert data.classes(source)[9] == "Ankle boot"


@pytest.mark.parametrize(("config", "held_back"), [
    (DataConfig(split="tuned-mlp"), 6000),
    (DataConfig(split="regularized-mlp"), 5000),
    (DataConfig(split="none"), 0),
])  # fmt: skip
def test_splits_are_stratified_disjoint_and_complete(data_dir: Path, config: DataConfig, held_back: int) -> None:
    loaded = data.load_train(data_dir, config)
    assert np.bincount(loaded.validation.labels, minlength=10).tolist() == [held_back // 10] * 10
    assert np.bincount(loaded.train.labels).tolist() == [6000 - held_back // 10] * 10
    (whole,), _ = data._load(data_dir, ("train",))
    assert items(loaded.train, loaded.validation) == items(whole)


def test_the_split_is_drawn_by_its_seed(data_dir: Path) -> None:
    first, again, other = (data.load_train(data_dir, DataConfig(split_seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.train.images, again.train.images)
    assert np.array_equal(first.validation.images, again.validation.images)
    assert items(first.validation) != items(other.validation)


def test_train_limit_keeps_a_stratified_subset_and_the_whole_validation(data_dir: Path) -> None:
    whole = data.load_train(data_dir, DataConfig())
    # One below the whole: what is left out would be too few for a split with both sides stratified.
    for limit, least in (500, 50), (53999, 5399):
        limited = data.load_train(data_dir, DataConfig(train_limit=limit))
        assert len(limited.train) == limit
        assert np.bincount(limited.train.labels).min() == least
        assert set(items(limited.train)) <= set(items(whole.train))
        assert np.array_equal(limited.validation.images, whole.validation.images)
    limited = data.load_train(data_dir, DataConfig(split="none", train_limit=500))
    assert (len(limited.train), len(limited.validation)) == (500, 0)


def test_too_few_images_for_the_split(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tuned-mlp.* 20 images"):
        data.load_train(make_set(tmp_path), DataConfig())


def test_each_load_needs_its_own_two_files_only(data_dir: Path, tmp_path: Path) -> None:
    for part in "train", "t10k":
        (tmp_path / part).mkdir()
        for path in data_dir.glob(f"{part}-*"):
            shutil.copy(path, tmp_path / part)
    assert set(data.load_train(tmp_path / "train", DataConfig()).source.sha256) == {TRAIN_IMAGES, TRAIN_LABELS}
    assert set(data.load_test(tmp_path / "t10k")[1].sha256) == {TEST_IMAGES, TEST_LABELS}
    with pytest.raises(BadInput, match=TEST_IMAGES):
        data.load_test(tmp_path / "train")
    with pytest.raises(BadInput, match=TEST_IMAGES):
        data.fetch(tmp_path / "train")


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_another_set_of_the_layout_works_if_given(tmp_path: Path, suffix: str) -> None:
    source = data.fetch(make_set(tmp_path / "kmnist", suffix=suffix))
    assert set(source.sha256) == set(data.SHA256)
    assert not source.is_fashion_mnist
    assert source.name == "kmnist (not Fashion-MNIST)"
    assert data.classes(source) == tuple("0123456789")


def test_the_hash_does_not_depend_on_the_compression(data_dir: Path, tmp_path: Path) -> None:
    for name in TEST_IMAGES, TEST_LABELS:
        (tmp_path / name).write_bytes(gzip.decompress((data_dir / f"{name}.gz").read_bytes()))
    assert data.load_test(tmp_path)[1].sha256 == data.load_test(data_dir)[1].sha256


def test_the_environment_names_the_directory_and_the_argument_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMNIST_DATA", str(make_set(tmp_path / "environment", count=10)))
    assert len(data.load_test()[0]) == 10
    assert len(data.load_test(make_set(tmp_path / "argument", count=30))[0]) == 30


IMAGES_IDX = idx(images(20))
DAMAGE = {
    "wrong magic": (TEST_IMAGES, gzip.compress(idx(images(20), zeros=1)), "magic number is 00010803, not 00000803"),
    "wrong dtype": (TEST_IMAGES, gzip.compress(idx(images(20), dtype=0x0D)), "magic number is 00000d03"),
    "labels as images": (TEST_IMAGES, gzip.compress(idx(labels(20))), "magic number is 00000801"),
    "images as labels": (TEST_LABELS, gzip.compress(IMAGES_IDX), "magic number is 00000803, not 00000801"),
    "wrong image size": (TEST_IMAGES, gzip.compress(idx(images(20)[:, 1:])), r"items are \[27, 28\]"),
    "transposed": (TEST_IMAGES, gzip.compress(idx(images(20).reshape(20, 56, 14))), r"items are \[56, 14\]"),
    "no items": (TEST_IMAGES, gzip.compress(idx(images(0))), "counts 0 items"),
    "terabytes promised": (TEST_IMAGES, gzip.compress(struct.pack(">4I", 0x803, 2**32 - 1, 28, 28)), "more than"),
    "header only": (TEST_IMAGES, gzip.compress(IMAGES_IDX[:15]), "within the header, after 15 bytes"),
    "short data": (TEST_IMAGES, gzip.compress(IMAGES_IDX[:-1]), "ends after 15679 of 15680 bytes"),
    "trailing byte": (TEST_IMAGES, gzip.compress(IMAGES_IDX + b"x"), "goes on after the 15680 bytes"),
    "trailing garbage": (TEST_IMAGES, gzip.compress(IMAGES_IDX) + b"garbage", "gzip"),
    "truncated gzip": (TEST_IMAGES, gzip.compress(IMAGES_IDX)[:9000], "Compressed file ended"),
    "without its checksum": (TEST_IMAGES, gzip.compress(IMAGES_IDX)[:-8], "Compressed file ended"),
    "wrong checksum": (TEST_IMAGES, gzip.compress(IMAGES_IDX)[:-8] + bytes(8), "CRC"),
    "broken deflate": (TEST_IMAGES, gzip.compress(IMAGES_IDX)[:10] + b"\xff" * 500, "invalid block type"),
    "not gzip": (TEST_IMAGES, IMAGES_IDX, "[Nn]ot a gzipped file"),
    "empty": (TEST_IMAGES, b"", "within the header, after 0 bytes"),
    "label 10": (TEST_LABELS, gzip.compress(idx(labels(20) + np.uint8(1))), "label 10 is above 9"),
    "fewer labels": (TEST_LABELS, gzip.compress(idx(labels(19))), "20 images.* 19 labels"),
    "more labels": (TEST_LABELS, gzip.compress(idx(labels(21))), "20 images.* 21 labels"),
}


@pytest.mark.parametrize(("name", "content", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named_with_the_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = make_set(tmp_path) / f"{name}.gz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=reason) as caught:
        data.load_test(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [TEST_IMAGES, TEST_LABELS])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (make_set(tmp_path) / f"{name}.gz").unlink()
    with pytest.raises(BadInput, match=rf"no {name}\.gz in "):
        data.load_test(tmp_path)


def test_a_given_directory_is_the_only_source(data_dir: Path, tmp_path: Path, keras_files: Path) -> None:
    shutil.copytree(data_dir, keras_files)
    with pytest.raises(BadInput, match="nowhere"):
        data.load_test(tmp_path / "nowhere")
    assert files_in(data.cache()) == set()


def test_a_source_fills_the_cache_which_then_serves(data_dir: Path, keras_files: Path) -> None:
    shutil.copytree(data_dir, keras_files)
    source = data.fetch()
    assert source.directory == data.cache()
    assert source.sha256 == data.SHA256
    assert files_in(data.cache()) == {f"{name}.gz" for name in data.SHA256}
    shutil.rmtree(keras_files)
    assert data.fetch() == source


def test_a_corrupt_cached_file_is_said_and_replaced(
    data_dir: Path, keras_files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(data_dir, keras_files)
    data.fetch()
    bad = data.cache() / f"{TEST_LABELS}.gz"
    bad.write_bytes(bad.read_bytes()[:1000])
    caplog.clear()
    assert data.fetch().directory == data.cache()
    assert caplog.messages[0].startswith(f"the cache: {bad}: ")
    assert bad.read_bytes() == (data_dir / bad.name).read_bytes()
    assert files_in(data.cache()) == {f"{name}.gz" for name in data.SHA256}


def test_without_any_source_one_line_each_and_the_cache_stays_empty(
    tmp_path: Path, keras_files: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    make_set(tmp_path / "system")
    shutil.copytree(tmp_path / "system", keras_files)
    (keras_files / f"{TRAIN_LABELS}.gz").write_bytes(b"")
    with pytest.raises(BadInput, match=f"{TRAIN_IMAGES}.*--data or FMNIST_DATA"):
        data.fetch()
    expected = {
        "the cache": f"no {TRAIN_IMAGES}.gz",
        "this system": f"{TRAIN_IMAGES}.gz is not Fashion-MNIST's",
        "the Keras cache": f"{TRAIN_LABELS}.gz: it ends within the header",
        "the Keras download": "URL fetch failure",
        "the Debian package": "apt-get",
    }
    assert len(caplog.messages) == len(expected)
    for message, (source, reason) in zip(caplog.messages, expected.items(), strict=True):
        assert message.startswith(f"{source}: ")
        assert reason in message
        assert "\n" not in message
    assert files_in(data.cache()) == set()
    assert capfd.readouterr().out == ""


def test_a_cache_that_cannot_be_written_leaves_the_source_in_use(
    data_dir: Path, keras_files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(data_dir, keras_files)
    data.cache().parent.write_bytes(b"a file where the folder should be")
    assert data.fetch().directory == keras_files
    assert "cannot be written" in caplog.messages[-1]


@pytest.mark.skipif(not shutil.which("apt-get") or not shutil.which("dpkg-deb"), reason="no apt on this system")
def test_the_debian_package_is_fetched_without_the_systems_package_lists(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APT_CONFIG", str(make_apt_repository(tmp_path, data_dir)))
    with data._debian_package() as found:
        assert {path.name: path.read_bytes() for path in found.iterdir()} == {
            path.name: path.read_bytes() for path in data_dir.glob("*.gz")
        }
    assert not found.exists()


def make_apt_repository(folder: Path, data_dir: Path) -> Path:
    """Offer the data set as a package in a local folder; returns an apt configuration that knows nothing else."""
    tree, deb = folder / "tree", folder / "repository" / "data.deb"
    control = "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: data\n"
    shutil.copytree(data_dir, tree / data.SYSTEM.relative_to("/"))
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(control)
    deb.parent.mkdir()
    subprocess.run(["dpkg-deb", "--build", "-Znone", tree, deb], check=True, capture_output=True)
    sha256 = hashlib.sha256(deb.read_bytes()).hexdigest()
    index = f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {sha256}\n"
    (deb.parent / "Packages").write_text(index)
    (folder / "sources.list").write_text(f"deb [trusted=yes] file:{deb.parent} ./\n")
    (folder / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "{folder}/none";\n'
    )
    return folder / "apt.conf"
