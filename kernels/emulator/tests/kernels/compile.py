"""Compiles the test kernels to PTX with NVRTC 12.4, for compute_80 and with line information.

    pip install --no-deps --target WHEELS nvidia-cuda-nvrtc-cu12==12.4.127 nvidia-cuda-runtime-cu12==12.4.127
    python compile.py WHEELS

The PTX is committed: no test needs NVRTC.
"""
import ctypes, pathlib, re, sys

wheels, here = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent
library = wheels / "nvidia/cuda_nvrtc/lib"
ctypes.CDLL(str(library / "libnvrtc-builtins.so.12.4"), ctypes.RTLD_GLOBAL)
nvrtc = ctypes.CDLL(str(library / "libnvrtc.so.12"), ctypes.RTLD_GLOBAL)

def compile(source):
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    options = ["--gpu-architecture=compute_80", "-lineinfo", "--std=c++17", f"--include-path={here}",
               f"--include-path={wheels}/nvidia/cuda_runtime/include"]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*map(str.encode, options)))
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    print(source.name, log.value.decode())
    if failed:
        sys.exit(1)
    nvrtc.nvrtcGetPTXSize(program, ctypes.byref(size))
    ptx = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetPTX(program, ptx)
    text = re.sub(r'(\.file\s+\d+ ")[^"]*/', r"\1", ptx.value.decode())  # only the file's name
    source.with_suffix(".ptx").write_text(text)

for source in sorted(here.glob("*.cu")):
    compile(source)
