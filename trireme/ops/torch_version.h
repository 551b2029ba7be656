// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Where releases of LibTorch differ and our code must not: the one place that knows of it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <torch/version.h>

#include <cstddef>
#include <cstring>

#if TORCH_VERSION_MAJOR >= 2
#include <ATen/ops/scaled_dot_product_attention.h>
#endif

namespace trireme {

// Attention by one of LibTorch's fused kernels, softmax(q k^T / sqrt(D)) v: q [B, H, T, D]; k, v
// [B, K, S, D], K dividing H; causal: T = S. Only where kHasFusedAttention. Kernels for groups of
// queries that share a kv head are bf16's alone, from 2.5 on; else each query head gets a copy.
#if TORCH_VERSION_MAJOR >= 2
inline constexpr bool kHasFusedAttention = true;
inline at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  bool causal) {
  const auto group = q.size(1) / k.size(1);
  if (group == 1) return at::scaled_dot_product_attention(q, k, v, {}, 0.0, causal);
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 5
  if (q.scalar_type() == at::kBFloat16) {
    return at::scaled_dot_product_attention(q, k, v, {}, 0.0, causal, {}, /*enable_gqa=*/true);
  }
#endif
  const auto for_each_head = [&](const at::Tensor& x) { return x.repeat_interleave(group, 1); };
  return at::scaled_dot_product_attention(q, for_each_head(k), for_each_head(v), {}, 0.0, causal);
}
#else
inline constexpr bool kHasFusedAttention = false;
at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           bool causal);  // never called
#endif

// An allocator for LibTorch of any release: 1.13 calls allocate() on a const one, 2.x on another,
// and asks for copy_data() beside. What the release at hand does not know is a function more.
class TorchAllocator : public c10::Allocator {
 public:
  // NOLINTBEGIN(modernize-use-override): which of them overrides is what differs.
  c10::DataPtr allocate(std::size_t bytes) const { return allocate_bytes(bytes); }
  c10::DataPtr allocate(std::size_t bytes) { return allocate_bytes(bytes); }
  void copy_data(void* to, const void* from, std::size_t bytes) const {
    std::memcpy(to, from, bytes);
  }
  // NOLINTEND(modernize-use-override)

 private:
  // As c10::Allocator says of allocate().
  virtual c10::DataPtr allocate_bytes(std::size_t bytes) const = 0;
};

}  // namespace trireme
