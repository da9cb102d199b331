"""Times PyTorch's scaled_dot_product_attention on its FlashAttention backend, bfloat16: forward, and forward + backward.

    python gpu/attention.py --batch 16 --seq 512
    python gpu/attention.py --batch 2 --seq 4096 --dropout 0

FLOPs are nominal: 4 B H T^2 D forward and two and a half times as many backward (five products where forward has two).
"""

import argparse

import cuda


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.1, help="probability of dropping")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=10)
    arguments = parser.parse_args()
    torch = cuda.require()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    shape = (arguments.batch, arguments.heads, arguments.seq, arguments.head_size)
    query, key, value, gradient = (torch.randn(shape, device=cuda.DEVICE, dtype=torch.bfloat16) for _ in range(4))
    inputs = [tensor.requires_grad_() for tensor in (query, key, value)]

    def attention():
        return torch.nn.functional.scaled_dot_product_attention(*inputs, dropout_p=arguments.dropout)

    def forward():
        with torch.no_grad():
            attention()

    def forward_backward():
        torch.autograd.grad(attention(), inputs, gradient)

    flops = 4 * arguments.batch * arguments.heads * arguments.seq**2 * arguments.head_size
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        passes = {
            "forward": cuda.summary(cuda.measure(torch, forward, arguments.warmup, arguments.steps)),
            "forward_backward": cuda.summary(cuda.measure(torch, forward_backward, arguments.warmup, arguments.steps)),
        }
    for name, factor in [("forward", 1), ("forward_backward", 3.5)]:
        passes[name]["tflops"] = factor * flops / passes[name]["median_s"] / 1e12
    cuda.report(torch, system="torch sdpa flash", shape=shape, dropout=arguments.dropout, **passes)


if __name__ == "__main__":
    main()
