"""Finding, verifying, parsing and splitting the data set."""

import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from images import PLAIN, idx, labels, lay, pixels
from places import put
from processes import python

from fmnist import environment
from fmnist.data import dataset
from fmnist.errors import BadInput
from fmnist.recipe.schema import DataConfig

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = dataset.SHA256
PACKED = f"{PLAIN}.gz"


def items(*parts: dataset.Images) -> list[bytes]:
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
    monkeypatch.setattr(environment, "_original", None)
    monkeypatch.delenv("FMNIST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(keras_home))
    monkeypatch.setattr(dataset, "SYSTEM", tmp_path / "system")
    # Nothing listens on the discard port, so every download is refused at once; without PATH there is no apt-get.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("PATH", str(tmp_path))
    return keras_home / "datasets" / "fashion-mnist"


def test_reads_the_genuine_set(data_dir: Path) -> None:
    test, source = dataset.load_test(data_dir)
    assert test.images.shape == (10000, 28, 28)
    assert test.images.dtype == test.labels.dtype == np.uint8
    assert test.images.flags.c_contiguous
    assert test.images.flags.writeable
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert (source.name, source.is_fashion_mnist) == ("Fashion-MNIST", True)
    assert source.sha256 == {name: dataset.SHA256[name] for name in (TEST_IMAGES, TEST_LABELS)}
    assert dataset.classes(source)[9] == "Ankle boot"


@pytest.mark.parametrize(("config", "held_back"), [
    (DataConfig(split="tuned-mlp"), 6000),
    (DataConfig(split="regularized-mlp"), 5000),
    (DataConfig(split="none"), 0),
])  # fmt: skip
def test_splits_are_stratified_disjoint_and_complete(data_dir: Path, config: DataConfig, held_back: int) -> None:
    loaded = dataset.load_train(data_dir, config)
    assert np.bincount(loaded.validation.labels, minlength=10).tolist() == [held_back // 10] * 10
    assert np.bincount(loaded.train.labels).tolist() == [6000 - held_back // 10] * 10
    (whole,), _ = dataset._load(data_dir, ("train",))
    assert items(loaded.train, loaded.validation) == items(whole)


def test_the_split_is_drawn_by_its_seed(data_dir: Path) -> None:
    first, again, other = (dataset.load_train(data_dir, DataConfig(split_seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.train.images, again.train.images)
    assert np.array_equal(first.validation.images, again.validation.images)
    assert items(first.validation) != items(other.validation)


def test_train_limit_keeps_a_stratified_subset_and_the_whole_validation(data_dir: Path) -> None:
    whole = dataset.load_train(data_dir, DataConfig())
    # One below the whole: what is left out would be too few for a split with both sides stratified.
    for limit, least in (500, 50), (53999, 5399):
        limited = dataset.load_train(data_dir, DataConfig(train_limit=limit))
        assert len(limited.train) == limit
        assert np.bincount(limited.train.labels).min() == least
        assert set(items(limited.train)) <= set(items(whole.train))
        assert np.array_equal(limited.validation.images, whole.validation.images)
    limited = dataset.load_train(data_dir, DataConfig(split="none", train_limit=500))
    assert (len(limited.train), len(limited.validation)) == (500, 0)


def test_too_few_images_for_the_split(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tuned-mlp.* 20 images"):
        dataset.load_train(lay(tmp_path, PACKED), DataConfig())


def test_each_load_needs_its_own_two_files_only(data_dir: Path, tmp_path: Path) -> None:
    for part in "train", "t10k":
        (tmp_path / part).mkdir()
        for path in data_dir.glob(f"{part}-*"):
            shutil.copy(path, tmp_path / part)
    assert set(dataset.load_train(tmp_path / "train", DataConfig()).source.sha256) == {TRAIN_IMAGES, TRAIN_LABELS}
    assert set(dataset.load_test(tmp_path / "t10k")[1].sha256) == {TEST_IMAGES, TEST_LABELS}
    with pytest.raises(BadInput, match=TEST_IMAGES):
        dataset.load_test(tmp_path / "train")
    with pytest.raises(BadInput, match=TEST_IMAGES):
        dataset.fetch(tmp_path / "train")


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_another_set_of_the_layout_works_if_given(tmp_path: Path, suffix: str) -> None:
    source = dataset.fetch(lay(tmp_path / "kmnist", PLAIN + suffix))
    assert set(source.sha256) == set(dataset.SHA256)
    assert not source.is_fashion_mnist
    assert source.name == "kmnist (not Fashion-MNIST)"
    assert dataset.classes(source) == tuple("0123456789")


def test_the_hash_does_not_depend_on_the_compression(data_dir: Path, tmp_path: Path) -> None:
    for name in TEST_IMAGES, TEST_LABELS:
        (tmp_path / name).write_bytes(gzip.decompress((data_dir / f"{name}.gz").read_bytes()))
    assert dataset.load_test(tmp_path)[1].sha256 == dataset.load_test(data_dir)[1].sha256


def test_the_environment_names_the_directory_and_the_argument_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FMNIST_DATA", str(lay(tmp_path / "environment", PACKED, train=10, t10k=10)))
    assert len(dataset.load_test()[0]) == 10
    assert len(dataset.load_test(lay(tmp_path / "argument", PACKED, train=30, t10k=30))[0]) == 30


IMAGES_IDX = idx(pixels(20))
DAMAGE = {
    "wrong magic": (TEST_IMAGES, gzip.compress(idx(pixels(20), zeros=1)), "magic number is 00010803, not 00000803"),
    "wrong dtype": (TEST_IMAGES, gzip.compress(idx(pixels(20), dtype=0x0D)), "magic number is 00000d03"),
    "labels as images": (TEST_IMAGES, gzip.compress(idx(labels(20))), "magic number is 00000801"),
    "images as labels": (TEST_LABELS, gzip.compress(IMAGES_IDX), "magic number is 00000803, not 00000801"),
    "wrong image size": (TEST_IMAGES, gzip.compress(idx(pixels(20)[:, 1:])), r"items are \[27, 28\]"),
    "transposed": (TEST_IMAGES, gzip.compress(idx(pixels(20).reshape(20, 56, 14))), r"items are \[56, 14\]"),
    "no items": (TEST_IMAGES, gzip.compress(idx(pixels(0))), "counts 0 items"),
    "terabytes promised": (TEST_IMAGES, gzip.compress(struct.pack(">4I", 0x803, 2**32 - 1, 28, 28)), "more than"),
    "header only": (TEST_IMAGES, gzip.compress(IMAGES_IDX[:15]), "within the header, after 15 bytes"),
    "short data": (TEST_IMAGES, gzip.compress(IMAGES_IDX[:-1]), "ends after 15679 of 15680 bytes"),
    "trailing byte": (TEST_IMAGES, gzip.compress(IMAGES_IDX + b"x"), "goes on after the 15680 bytes"),
    "trailing garbage": (TEST_IMAGES, gzip.compress(IMAGES_IDX) + b"garbage", "gzip"),
    "truncated gzip": (TEST_IMAGES, gzip.compress(IMAGES_IDX)[:9000], "Compressed file ended"),
    "without its checksum": (TEST_IMAGES, gzip.compress(IMAGES_IDX)[:-8], "Compressed file ended"),
    "wrong checksum": (TEST_IMAGES, gzip.compress(IMAGES_IDX)[:-8] + bytes(8), "CRC"),
    "broken deflate": (TEST_IMAGES, gzip.compress(IMAGES_IDX)[:10] + b"\xff" * 500, "invalid block type"),
    "gzip within gzip": (TEST_IMAGES, gzip.compress(gzip.compress(IMAGES_IDX)), "it is gzip within gzip, not IDX"),
    "zip": (TEST_IMAGES, b"PK\x03\x04" + bytes(99), "it is a zip archive, not IDX"),
    "an error page": (TEST_IMAGES, b"<!DOCTYPE html>" + bytes(99), "it is HTML, not IDX"),
    "a pointer": (TEST_IMAGES, b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer of Git LFS"),
    "text": (TEST_IMAGES, b"label,pixel1,pixel2\n", "its magic number is 6c616265, not 00000803"),
    "empty": (TEST_IMAGES, b"", "within the header, after 0 bytes"),
    "label 10": (TEST_LABELS, gzip.compress(idx(labels(20) + np.uint8(1))), "label 10 is above 9"),
    "fewer labels": (TEST_LABELS, gzip.compress(idx(labels(19))), "20 images.* 19 labels"),
    "more labels": (TEST_LABELS, gzip.compress(idx(labels(21))), "20 images.* 21 labels"),
}


@pytest.mark.parametrize(("name", "content", "reason"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_named_with_the_reason(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = lay(tmp_path, PACKED) / f"{name}.gz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=reason) as caught:
        dataset.load_test(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [TEST_IMAGES, TEST_LABELS])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (lay(tmp_path, PACKED) / f"{name}.gz").unlink()
    with pytest.raises(BadInput, match=rf"no {name}\.gz in "):
        dataset.load_test(tmp_path)


# As the packagers name them, and as they unpack: the path of a file, by its part, kind and IDX dimensions.
LAYOUTS = {
    "a dot": "{part}-{kind}.idx{ndim}-ubyte",
    "upper case": "{PART}-{KIND}-IDX{ndim}-UBYTE.GZ",
    "underscores": "{part}_{kind}_idx{ndim}_ubyte",
    "short": "{part}-{kind}.gz",
    "EMNIST": "{emnist}-{kind}-idx{ndim}-ubyte.gz",
    "a folder each": "{part}-{kind}-idx{ndim}-ubyte/{part}-{kind}-idx{ndim}-ubyte",
    "a folder each, with a dot": "{part}-{kind}.idx{ndim}-ubyte.gz/{part}-{kind}.idx{ndim}-ubyte",
    "EMNIST, a folder each": "gzip/{emnist}-{kind}-idx{ndim}-ubyte/{emnist}-{kind}-idx{ndim}-ubyte",
    "torchvision": "FashionMNIST/raw/{part}-{kind}-idx{ndim}-ubyte",
    "Keras": "datasets/fashion-mnist/{part}-{kind}-idx{ndim}-ubyte.gz",
    "a folder a part": "mnist/{part}/{part}-{kind}-idx{ndim}-ubyte.gz",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_data_set_is_found_as_it_was_packed(tmp_path: Path, layout: str) -> None:
    source = dataset.fetch(lay(tmp_path / "set", layout))
    assert source.sha256 == dataset.fetch(lay(tmp_path / "plain", PACKED)).sha256
    assert source.directory == tmp_path / "set"


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_a_name_need_not_say_whether_the_file_is_compressed(tmp_path: Path, suffix: str) -> None:
    expected = dataset.fetch(lay(tmp_path, PLAIN + suffix)).sha256
    for path in tmp_path.iterdir():
        whole = path.read_bytes()
        path.write_bytes(gzip.decompress(whole) if suffix else gzip.compress(whole))
    assert dataset.fetch(tmp_path).sha256 == expected


def test_one_file_in_several_forms_is_one_file(tmp_path: Path) -> None:
    """As torchvision leaves them, and one of the collections on Kaggle."""
    lay(tmp_path, PACKED)
    lay(lay(lay(tmp_path, PLAIN), LAYOUTS["a dot"]), LAYOUTS["a folder each, with a dot"])
    assert len(dataset.load_test(tmp_path)[0]) == 20


def test_the_files_in_the_folder_itself_go_before_those_below(tmp_path: Path) -> None:
    lay(lay(tmp_path, PACKED), LAYOUTS["torchvision"], train=30, t10k=30)
    assert len(dataset.load_test(tmp_path)[0]) == 20


def test_what_belongs_to_no_data_set_is_passed_over(tmp_path: Path) -> None:
    lay(tmp_path, PACKED)
    for name in "._train-images-idx3-ubyte.gz", "emnist-mapping.txt", "train-images-idx3-ubyte.gz.md5", "test.csv":
        (tmp_path / name).write_bytes(b"\0\5")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "itself").symlink_to("itself")
    assert len(dataset.load_test(tmp_path)[0]) == 20


SEVERAL = {
    "names": ("emnist-digits-{part}-{kind}-idx{ndim}-ubyte.gz", "emnist-letters-{part}-{kind}-idx{ndim}-ubyte.gz"),
    "folders": ("MNIST/raw/{part}-{kind}-idx{ndim}-ubyte", "FashionMNIST/raw/{part}-{kind}-idx{ndim}-ubyte"),
    "forms": ("{part}-{kind}-idx{ndim}-ubyte", "{part}-{kind}-idx{ndim}-ubyte.gz"),
}


@pytest.mark.parametrize("layouts", SEVERAL.values(), ids=SEVERAL)
@pytest.mark.parametrize("parts", [("train", "t10k"), ("train",)])
def test_of_several_data_sets_none_is_guessed(tmp_path: Path, layouts: tuple[str, str], parts: tuple[str, ...]) -> None:
    """Nor where one of them has all that is asked for: the next job would take another."""
    lay(lay(tmp_path, layouts[0]), layouts[1], **dict.fromkeys(parts, 30))
    with pytest.raises(BadInput, match="holds several data sets") as caught:
        dataset.load_train(tmp_path, DataConfig(split="none"))
    for layout in layouts:
        assert layout.format(part="train", kind="images", ndim=3) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_images_without_their_labels_are_no_data_set(tmp_path: Path) -> None:
    lay(tmp_path, f"a/{PLAIN}")
    lay(tmp_path, f"b/{PLAIN}", train=30, t10k=30)
    for name in f"a/{TEST_IMAGES}", f"a/{TRAIN_IMAGES}":
        (tmp_path / name).unlink()
    assert len(dataset.load_test(tmp_path)[0]) == 30
    (tmp_path / f"b/{TEST_LABELS}").unlink()
    with pytest.raises(BadInput, match=f"no {TEST_LABELS}.gz in "):
        dataset.load_test(tmp_path)


def test_the_train_files_are_read_without_the_test_files(tmp_path: Path) -> None:
    lay(tmp_path, LAYOUTS["EMNIST"])
    for path in tmp_path.glob("*-test-*"):
        path.unlink()
        os.mkfifo(path)
    assert len(dataset.load_train(tmp_path, DataConfig(split="none")).train) == 20


def a_folder_of_archives(path: Path) -> None:
    path.mkdir()
    for name in "archive.zip", "b.csv", "c.csv", "d.csv", "e\n.csv", "f.csv", "g.csv":
        (path / name).touch()
    (path / "train").mkdir()


def in_place_of_a_file(kind: str) -> Callable[[Path], None]:
    return lambda path: put(kind, lay(path, PACKED) / f"{TEST_LABELS}.gz")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file": (lambda path: np.savez(path, pixels(2)), r"set.npz is a file, not a folder: unpack it"),
    "archives": (
        a_folder_of_archives,
        r"no t10k-.* in .*set.npz, which holds archive.zip, b.csv, c.csv, d.csv and 4 more;",
    ),
    "an empty folder": (Path.mkdir, r"set.npz, which is empty;"),
    "a pipe": (os.mkfifo, r"set.npz is a file, not a folder"),
    "a pipe in it": (in_place_of_a_file("a pipe"), rf"{TEST_LABELS}.gz: it is a pipe, not a file"),
    "a broken link": (in_place_of_a_file("a dangling link"), rf"{TEST_LABELS}.gz: No such file"),
    "a folder in it": (
        in_place_of_a_file("a folder"),
        rf"no {TEST_LABELS}.gz in .*set.npz, which holds .*{TEST_LABELS}.gz/",
    ),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_folder_of_idx_files_is_refused_at_once(
    tmp_path: Path, make: Callable[[Path], object], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "set.npz")
    monkeypatch.setenv("FMNIST_DATA", str(tmp_path / "set.npz"))
    with pytest.raises(BadInput, match=reason) as caught:
        dataset.load_test()
    assert str(caught.value).endswith("; put a good copy there, or name another folder with --data")
    assert "\n" not in str(caught.value)


def test_labels_of_more_classes_are_refused_with_what_is_expected(tmp_path: Path) -> None:
    """EMNIST's letters go from 1 to 26."""
    lay(tmp_path, "emnist-letters-{part}-{kind}-idx{ndim}-ubyte")
    path = tmp_path / "emnist-letters-test-labels-idx1-ubyte"
    (tmp_path / "emnist-letters-t10k-labels-idx1-ubyte").rename(path)
    path.write_bytes(idx((np.arange(20) + 7).astype(np.uint8)))
    with pytest.raises(BadInput, match=f"{path}: label 26 is above 9; a data set of 10 classes is expected"):
        dataset.load_test(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user without a home")
def test_a_user_without_a_home_has_a_cache_all_the_same(data_dir: Path) -> None:
    # Imports first, those of a load too: that user may look neither into this environment nor into root's Python.
    program = """if True:
        import os, sys
        from pathlib import Path
        from fmnist.data import dataset
        dataset.load_test(Path(sys.argv[1]))
        os.setgroups([]), os.setgid(12345), os.setuid(12345)
        dataset.SYSTEM = Path(sys.argv[1])
        print(dataset.fetch().directory)
        dataset.SYSTEM = Path("nowhere")
        print(dataset.fetch().directory)
    """
    unset = ("HOME", "FMNIST_DATA", "KERAS_HOME", "XDG_CACHE_HOME")
    environ = {name: value for name, value in os.environ.items() if name not in unset}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        shutil.copytree(data_dir, Path(folder, "system"))
        found = python(program, f"{folder}/system", env=environ | {"TMPDIR": folder})
    assert found.stdout.splitlines() == [f"{folder}/fmnist-12345"] * 2, found.stderr


def test_a_given_directory_is_the_only_source(data_dir: Path, tmp_path: Path, keras_files: Path) -> None:
    shutil.copytree(data_dir, keras_files)
    with pytest.raises(BadInput, match="nowhere"):
        dataset.load_test(tmp_path / "nowhere")
    assert files_in(dataset.cache()) == set()


def test_a_source_fills_the_cache_which_then_serves(data_dir: Path, keras_files: Path) -> None:
    shutil.copytree(data_dir, keras_files)
    source = dataset.fetch()
    assert source.directory == dataset.cache()
    assert source.sha256 == dataset.SHA256
    assert files_in(dataset.cache()) == {f"{name}.gz" for name in dataset.SHA256}
    shutil.rmtree(keras_files)
    assert dataset.fetch() == source


def test_a_corrupt_cached_file_is_said_and_replaced(
    data_dir: Path, keras_files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(data_dir, keras_files)
    dataset.fetch()
    bad = dataset.cache() / f"{TEST_LABELS}.gz"
    bad.write_bytes(bad.read_bytes()[:1000])
    caplog.clear()
    assert dataset.fetch().directory == dataset.cache()
    assert caplog.messages[0].startswith(f"the cache: {bad}: ")
    assert bad.read_bytes() == (data_dir / bad.name).read_bytes()
    assert files_in(dataset.cache()) == {f"{name}.gz" for name in dataset.SHA256}


def test_without_any_source_one_line_each_and_the_cache_stays_empty(
    tmp_path: Path, keras_files: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    lay(tmp_path / "system", PACKED)
    shutil.copytree(tmp_path / "system", keras_files)
    (keras_files / f"{TRAIN_LABELS}.gz").write_bytes(b"")
    with pytest.raises(BadInput, match=f"{TRAIN_IMAGES}.*--data or FMNIST_DATA"):
        dataset.fetch()
    expected = {
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
    assert files_in(dataset.cache()) == set()
    assert capfd.readouterr().out == ""


def test_a_cache_that_cannot_be_written_leaves_the_source_in_use(
    data_dir: Path, keras_files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(data_dir, keras_files)
    dataset.cache().parent.write_bytes(b"a file where the folder should be")
    assert dataset.fetch().directory == keras_files
    assert "cannot be written" in caplog.messages[-1]


@pytest.mark.skipif(not shutil.which("apt-get") or not shutil.which("dpkg-deb"), reason="no apt on this system")
def test_the_debian_package_is_fetched_without_the_systems_package_lists(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APT_CONFIG", str(make_apt_repository(tmp_path, data_dir)))
    with dataset._debian_package() as found:
        assert {path.name: path.read_bytes() for path in found.glob("*.gz")} == {
            path.name: path.read_bytes() for path in data_dir.glob("*.gz")
        }
    assert not found.exists()


@pytest.mark.skipif(not shutil.which("apt-get") or not shutil.which("dpkg-deb"), reason="no apt on this system")
def test_what_one_job_downloads_serves_the_others(
    data_dir: Path, tmp_path: Path, keras_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_apt = os.environ["PATH"]
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("APT_CONFIG", str(make_apt_repository(tmp_path / "apt", data_dir)))
    _, source = dataset.load_images()
    assert source.sha256.keys() == {TRAIN_IMAGES, TRAIN_LABELS}
    monkeypatch.setenv("PATH", without_apt)
    assert dataset.load_test()[1].directory == source.directory == dataset.cache()


@pytest.mark.skipif(not shutil.which("apt-get") or not shutil.which("dpkg-deb"), reason="no apt on this system")
def test_what_cannot_be_kept_is_used_all_the_same(
    data_dir: Path, tmp_path: Path, keras_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setenv("APT_CONFIG", str(make_apt_repository(tmp_path / "apt", data_dir)))
    dataset.cache().parent.write_bytes(b"a file where the folder should be")
    images, source = dataset.load_test()
    assert len(images) == 10_000
    assert source.sha256.keys() == {TEST_IMAGES, TEST_LABELS}
    with pytest.raises(BadInput, match="cannot be kept in .*set XDG_CACHE_HOME"):
        dataset.fetch()


def make_apt_repository(folder: Path, data_dir: Path) -> Path:
    """Offer the data set as a package in a local folder; returns an apt configuration that knows nothing else."""
    tree, deb = folder / "tree", folder / "repository" / "data.deb"
    control = "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: data\n"
    shutil.copytree(
        data_dir, tree / dataset.SYSTEM.relative_to("/"), ignore=lambda _, names: [n for n in names if n[-3:] != ".gz"]
    )
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


def test_a_cache_that_lacks_a_part_is_nothing_to_warn_of(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A training has kept what it needs, and nobody had asked for the test set yet."""
    monkeypatch.delenv("FMNIST_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(dataset, "SYSTEM", data_dir)
    dataset.load_images()
    assert sorted(path.name for path in (tmp_path / "fmnist").iterdir()) == sorted(
        path.name for path in data_dir.glob("train-*")
    )
    dataset.load_test()
    assert caplog.messages == []
