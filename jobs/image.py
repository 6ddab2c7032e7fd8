"""Build the image, tagged by accelerator and by git revision. Standard library only.

usage: python3 -m jobs.image --engine ENGINE --accelerator cuda|cpu [--base-image IMAGE]
"""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import fmnist
from fmnist.errors import EXIT_BAD_INPUT, BadInput
from fmnist.revision import git, revision
from fmnist.text import escaped
from jobs import engines
from jobs.options import Parser

_ROOT = Path(__file__).resolve().parent.parent
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
_TITLE = "org.opencontainers.image.title=fmnist"


def main() -> None:
    """Build the image that the command line names."""
    parser = Parser(prog="jobs.image")
    parser.add_argument("--engine", choices=("auto", *engines.NAMES), default="auto")
    parser.add_argument("--accelerator", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--base-image")
    try:
        options = parser.parse_args()
        engine = engines.choose(options.engine)
    except BadInput as error:
        print(f"image: {escaped(str(error))}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    here = revision()
    name = f"fmnist:{options.accelerator}"
    # A tag cannot contain a plus sign.
    tags = [name, *([f"{name}-{here[:12]}{'-changes' if here.endswith('+changes') else ''}"] if here else [])]
    arguments = {
        "ACCELERATOR": options.accelerator,
        "BASE_IMAGE": options.base_image,
        "REVISION": here,
        "VERSION": fmnist.__version__,
        "SOURCE": _source(),
        "IMAGE": tags[-1],
    }
    command = [engine.name, "build", f"--file={_ROOT / 'docker' / 'Dockerfile'}", *(f"--tag={tag}" for tag in tags)]
    command += [f"--build-arg={key}={value}" for key, value in arguments.items() if value]
    # The site's proxies, which Podman passes on by itself: they are no part of the image.
    command += [f"--build-arg={name}" for name in os.environ if name.lower() in _PROXIES]
    if engine.name == "podman":
        # Otherwise SELinux would keep the build from reading the user's own files.
        command += ["--security-opt=label=disable"]
    done = subprocess.run([*command, str(_ROOT)], env={**os.environ, "DOCKER_BUILDKIT": "1"})
    if done.returncode:
        sys.exit(done.returncode)
    # Remove the images that had these tags before.
    engine("image", "prune", "--force", "--filter", f"label={_TITLE}", check=False)
    size = int(engine("image", "inspect", "--format", "{{.Size}}", name))
    print(f"{engine.name} has {' and '.join(tags)}: {size / 1e9:.2f} GB")


def _source() -> str | None:
    """Return the address that the code is from, without the password that it may contain."""
    if not (address := git("config", "--get", "remote.origin.url")):
        return None
    url = urlsplit(address)
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()


if __name__ == "__main__":
    main()
