#!/usr/bin/env bash
# Make the like of debian:bookworm-slim without an image registry, from this Debian 12's apt sources and trust store.
# usage: base_image.sh TAG     (Podman's; a minute, 134 MB)
# needs: mmdebstrap, podman, root
set -euo pipefail
tag=${1:?a tag}
tar=$(mktemp --suffix=.tar)
trap 'rm -f "$tar"' EXIT

# The hooks are run by mmdebstrap, with the new root as $1.
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=minbase --include=ca-certificates \
    --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='mkdir -p "$1/usr/local/share/ca-certificates"' \
    --customize-hook='cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" 2>/dev/null || true' \
    --customize-hook='chroot "$1" update-ca-certificates' \
    --customize-hook='printf "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n" >"$1/etc/pip.conf"' \
    bookworm "$tar" /etc/apt/sources.list.d/debian.sources
podman import --quiet --change 'CMD ["bash"]' "$tar" "$tag"
