"""Measures with PyTorch what the GPU can do: TFLOP/s of a large bfloat16 product, GB/s of a large copy.

    python gpu/peaks.py

The product is 8192 x 8192 x 8192 on normal operands (constant ones draw less power and run faster); the copy moves 4 GiB,
counted once read and once written.
"""

import argparse

import cuda

SIZE = 8192
COPY_BYTES = 4 << 30


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    torch = cuda.require()
    a, b = (torch.randn(SIZE, SIZE, device=cuda.DEVICE, dtype=torch.bfloat16) for _ in range(2))
    product = cuda.summary(cuda.measure(torch, lambda: a @ b, 5, arguments.steps))
    source = torch.zeros(COPY_BYTES, device=cuda.DEVICE, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy = cuda.summary(cuda.measure(torch, lambda: target.copy_(source), 2, arguments.steps))
    cuda.report(
        torch,
        system="torch peaks",
        gemm_bf16_tflops=2 * SIZE**3 / product["median_s"] / 1e12,
        copy_gb_per_s=2 * COPY_BYTES / copy["median_s"] / 1e9,
    )


if __name__ == "__main__":
    main()
