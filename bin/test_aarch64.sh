#!/usr/bin/env bash
# Run Python tests of the robot side on emulated 64-bit ARM (qemu-user), with the wheels that pip would install there.
#
#   bin/test_aarch64.sh [PYTEST ARGUMENTS]
#
# Needs, once: apt install g++-aarch64-linux-gnu qemu-user; dpkg --add-architecture arm64 && apt update; and .venv (make test).
# Everything is under build/aarch64-root; nothing is installed on this machine. Neither binfmt_misc nor a container is
# needed: `python` there is a script, which is also Python's sys.executable, so that children are emulated too.
set -euo pipefail
cd "$(dirname "$0")/.."

here=$PWD/build/aarch64-root
system=$here/system
wheels=$here/wheels
python=$here/python
debs="libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libexpat1 libssl3 libffi8 libsqlite3-0 libbz2-1.0 liblzma5 libuuid1
    libncursesw6 libtinfo6 libcrypt1 libpython3.11-minimal libpython3.11-stdlib python3.11-minimal"
packages="numpy pillow typer rich onnxruntime onnx-ir onnx ml-dtypes pyyaml rosbags mcap mcap-ros2-support protobuf websockets
    pyarrow fsspec scipy opencv-python-headless av pytest pytest-xdist hypothesis"
tests=(tests/runtime tests/robot tests/kernels tests/engines/test_onnxruntime.py tests/engines/test_onnxruntime_attention.py
    tests/test_camera.py tests/test_distortion.py tests/test_image.py tests/test_native.py tests/test_postprocess.py
    tests/test_resampling.py tests/test_stats.py)

if [ ! -x "$python" ]; then
    mkdir -p "$system/proc" "$here/debs"
    (cd "$here/debs" && apt-get download -qq $(printf '%s:arm64 ' $debs))
    for deb in "$here"/debs/*.deb; do dpkg-deb -x "$deb" "$system"; done
    # Libraries ask the system which CPU it is. ONNX Runtime crashes where /proc/cpuinfo describes an x86; qemu opens files of
    # $system first.
    for cpu in 0 1; do
        folder=$system/sys/devices/system/cpu/cpu$cpu/regs/identification
        mkdir -p "$folder"
        echo 0x00000000413fd0c1 >"$folder/midr_el1"
        printf 'processor\t: %d\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\nCPU revision\t: 1\n\n' $cpu
    done >"$system/proc/cpuinfo"
    echo 0-1 | tee "$system/sys/devices/system/cpu/possible" >"$system/sys/devices/system/cpu/present"
    platforms=$(printf -- '--platform manylinux_2_%s_aarch64 ' 17 24 26 27 28 31 34 35)
    .venv/bin/python -m pip install --quiet --no-compile --target "$wheels" --implementation cp --python-version 3.11 \
        --only-binary=:all: $platforms --platform manylinux2014_aarch64 --constraint constraints.txt $packages
    cat >"$python" <<END
#!/bin/sh
export PYTHONHOME=$system/usr
case ":\$PYTHONPATH:" in *:$wheels:*) ;; *) export PYTHONPATH=$PWD:$wheels\${PYTHONPATH:+:\$PYTHONPATH} ;; esac
exec qemu-aarch64 -cpu neoverse-n1 -0 "\$0" -L $system $system/usr/bin/python3.11 "\$@"
END
    chmod +x "$python"
fi

.venv/bin/cmake -B build/aarch64-library -G Ninja -DCMAKE_MAKE_PROGRAM="$PWD/.venv/bin/ninja" -DCMAKE_BUILD_TYPE=Release \
    --toolchain cpp/cmake/aarch64-linux-gnu.cmake -DMVDE_VERSIONED_SONAME=OFF >/dev/null
.venv/bin/cmake --build build/aarch64-library --target mvde
export MVDE_LIBRARY=$PWD/build/aarch64-library/cpp/libmvde.so
exec "$python" -m pytest -q -p no:cacheprovider -m "not slow and not extended" "${@:-${tests[@]}}"
