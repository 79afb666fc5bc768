#!/usr/bin/env bash
# Test the robot side on emulated 64-bit ARM (qemu-user): the wheel of `make dist-aarch64`, with what pip would install there.
#
#   bin/test_aarch64.sh [PYTEST ARGUMENTS]
#
# Without arguments: builds engines of the shipped model there and runs them on a photograph, then the tests below. With
# arguments: pytest only. Needs, once: apt install g++-aarch64-linux-gnu qemu-user; dpkg --add-architecture arm64 && apt update;
# and .venv (make test). Everything is under build/; nothing is installed on this machine. Neither binfmt_misc nor a container
# is needed: `python` there is a script, which is also Python's sys.executable, so that children are emulated too.
#
# Left out because of the emulation: tests that build and start programs (tests/cpp), and those of times (tests/bench). Left
# out because a robot has no use for it: what needs PyTorch (export, training, families, VLMs), and TensorRT, which has no CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=$(realpath "${VENV:-.venv}")/bin
here=$PWD/build/aarch64-root
system=$here/system
wheels=$here/wheels
python=$here/python
debs="libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libexpat1 libssl3 libffi8 libsqlite3-0 libbz2-1.0 liblzma5 libuuid1
    libncursesw6 libtinfo6 libcrypt1 libpython3.11-minimal libpython3.11-stdlib python3.11-minimal"
packages="numpy pillow typer rich onnxruntime openvino onnx-ir onnx ml-dtypes pyyaml rosbags mcap mcap-ros2-support protobuf
    websockets pyarrow fsspec scipy opencv-python-headless av foxglove-sdk pytest pytest-xdist hypothesis"
tests=(tests/runtime tests/robot tests/kernels
    tests/engines/test_{base,build,float_environment,isa,known_bad,live_file,machine,onnxruntime,onnxruntime_attention}.py
    tests/engines/test_{openvino,outputs,process,proof,sealed,store}.py
    tests/test_{camera,distortion,image,native,postprocess,resampling,stats}.py)
emulator="qemu-aarch64 -cpu neoverse-n1 -L $system"
pip_install() {
    "$venv/python" -m pip install --quiet --no-compile --upgrade --target "$wheels" --implementation cp --python-version 3.11 \
        --only-binary=:all: $(printf -- '--platform manylinux_2_%s_aarch64 ' 17 24 26 27 28 31 34 35) "$@"
}

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
    pip_install --platform manylinux2014_aarch64 --constraint constraints.txt $packages
    # PYTHONSAFEPATH: the wheel's mvde is imported, not that of the current folder.
    cat >"$python" <<END
#!/bin/sh
export PYTHONHOME=$system/usr PYTHONSAFEPATH=1
case ":\$PYTHONPATH:" in *:$wheels:*) ;; *) export PYTHONPATH=$wheels\${PYTHONPATH:+:\$PYTHONPATH} ;; esac
exec $emulator -0 "\$0" $system/usr/bin/python3.11 "\$@"
END
    chmod +x "$python"
    # Tests compile sources for this Python: with the cross compiler, which runs as it is.
    mkdir "$here/bin" && ln -s "$(command -v aarch64-linux-gnu-g++)" "$here/bin/g++"
    ln -s "$(command -v aarch64-linux-gnu-gcc)" "$here/bin/cc"
fi

make dist-aarch64 ${VENV:+VENV="$VENV"}
rm -rf "$wheels"/mvde "$wheels"/mvde-*.dist-info
pip_install --no-deps dist/*_aarch64.whl
unset PYTHONPATH

if [ $# = 0 ]; then
    work=$here/work photo=mvde/assets/photos/coffee.jpg
    rm -rf "$work" && mkdir -p "$work/images" && cp "$photo" "$work/images/"
    "$venv/python" -m mvde export --res 192 --out "$work/export"
    "$venv/python" -m mvde build --engine onnxruntime:fp32 --export-dir "$work/export" --out "$work/host"
    "$venv/python" -m mvde run "$photo" --engine onnxruntime:fp32 --engine-dir "$work/host" --out "$work/depth-host"

    "$python" -m mvde doctor
    # Parity on one photograph instead of six: an inference takes seconds.
    "$python" -m mvde build --images "$work/images" --engine onnxruntime:fp32 --engine openvino:fp32 \
        --export-dir "$work/export" --out "$work/engines"
    for backend in onnxruntime openvino; do
        "$python" -m mvde run "$photo" --engine $backend:fp32 --engine-dir "$work/engines" --out "$work/depth-$backend"
        "$venv/python" - "$work"/depth-{host,$backend}/coffee.depth.png <<END
import sys
import numpy as np
from PIL import Image
here, there = (np.asarray(Image.open(path)).astype(int) for path in sys.argv[1:])
print("$backend: depth differs from this machine's by at most", np.abs(here - there).max(), "mm")
sys.exit(bool(np.abs(here - there).max() > 2))
END
    done

    # C++ against the wheel, with OpenVINO's backend: Python's bits.
    "$venv/cmake" -S cpp/examples -B build/aarch64-examples -G Ninja -DCMAKE_MAKE_PROGRAM="$venv/ninja" \
        -DCMAKE_BUILD_TYPE=Release --toolchain "$PWD/cpp/cmake/aarch64-linux-gnu.cmake" -Dmvde_DIR="$wheels/mvde/lib/cmake/mvde" >/dev/null
    "$venv/cmake" --build build/aarch64-examples --target infer
    "$venv/python" -c "from PIL import Image; Image.open('$photo').convert('RGB').save('$work/photo.ppm')"
    $emulator build/aarch64-examples/infer "$work/engines/nano-192x192-openvino-fp32" "$work"/{photo.ppm,depth.f32,stats.f32}
    "$python" - "$work" <<END
import sys
from pathlib import Path
import mvde
import numpy as np
from PIL import Image
work = Path(sys.argv[1])
with mvde.DepthRuntime.load(work / "engines/nano-192x192-openvino-fp32") as runtime:
    result = runtime.infer(np.asarray(Image.open("$photo").convert("RGB")))
assert result.depth.tobytes() == (work / "depth.f32").read_bytes()
assert result.stats.tobytes() == (work / "stats.f32").read_bytes()
print("C++ and Python give the same bits")
END
fi
PATH=$here/bin:$PATH "$python" -m pytest -q -p no:cacheprovider -m "not slow and not extended" "${@:-${tests[@]}}"
