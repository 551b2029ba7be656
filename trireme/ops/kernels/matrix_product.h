// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Matrix products with what follows them in the same pass: bias, activation, its gradient, or the
// addition to a gradient.
//
// Every element of a product is one chain of fused multiply-adds in f32 over the inner dim in
// ascending order, for f32 and bf16 alike. So its bits depend neither on the threads, nor on the
// blocking, nor on the width of the vector units, nor on how many rows are computed together.
// (Processors whose vector units do not fuse, x86 before AVX2, round each product too, and have
// bits of their own.)
//
// One exception: kThinRows rows or fewer against a matrix stored by columns (a token's activations
// against a layer's weight, in generation) are dot products along the inner dim, which read the
// weight once, as it lies; the lanes of a vector are then chains of their own, added in one order.
//
// bf16 is widened while it is packed and multiplied in f32: an exact product. Where the processor's
// own bf16 dot product is faster, two bf16 matrices go to that instead, and a chain's links are
// pairs (docs/compute.md: on some processors it takes twice the time).
#pragma once

#include <cstdint>
#include <span>

#include "trireme/ops/kernels/element.h"

namespace trireme::ops {

// What becomes of an element p of the product. All matrices named here have the product's shape,
// the element type of `out`, and `stride` elements from row to row.
struct Epilogue {
  enum class Kind {
    kStore,           // out = p + bias
    kAdd,             // out += p; out is f32
    kGelu,            // second_out = p + bias, out = gelu(second_out as it is stored)
    kGeluGradient,    // out = p gelu'(first_in)
    kSwiglu,          // second_out = p, out = silu(first_in) second_out as it is stored
    kSwigluGradient,  // out = p second_in silu'(first_in), second_out = p silu(first_in)
  };
  Kind kind = Kind::kStore;
  void* out = nullptr;
  Element element = Element::kF32;
  std::int64_t stride = 0;
  void* second_out = nullptr;
  const void* first_in = nullptr;
  const void* second_in = nullptr;
  const void* bias = nullptr;  // one for each column, of type `element`; null: none
};

inline constexpr std::int64_t kThinRows = 4;

// left [M, K] times right [K, N] goes through the epilogue. M, N >= 1; K >= 0. The outputs must not
// overlap the inputs, but for first_in and second_in. Blocks; runs on all of ops' threads.
void matrix_product(const MatrixView& left, const MatrixView& right, const Epilogue& epilogue);

// One of several products.
struct Product {
  MatrixView left;
  MatrixView right;
  Epilogue epilogue;
};

// matrix_product() of each, with the same bits, as tasks of one run: threads do not wait for one
// another between them. No output may overlap another product's output or input.
void matrix_products(std::span<const Product> products);

// Whether products of two bf16 matrices use the processor's bf16 dot product: it has one that does
// its two multiplications in less than three quarters of the time of two f32 multiply-adds, and
// kernels run on its vector units. Measured once.
bool bf16_dot_in_use();

// Sums of the columns of a matrix, added to sums [columns] (f32): f32 sums over blocks of 64 rows,
// which are added in order. values: rows contiguous. Bits do not depend on threads or vector units.
void add_column_sums(const MatrixView& values, float* sums);

}  // namespace trireme::ops
