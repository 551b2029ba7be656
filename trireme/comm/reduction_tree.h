// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The one order in which values of several ranks are combined, and the kernel that does it.
//
// The tree over ranks [a, b) is: the tree over [a, m) on the left, the tree over [m, b) on the
// right, m = a + the largest power of two below b - a. Six ranks give ((0+1)+(2+3))+(4+5). The tree
// depends on nothing but the number of ranks, so every engine and algorithm that reduces with
// reduce_tree() gives the same bits; and since a subtree over 2^k aligned ranks is whole, ranks
// that first combine their own leaves in pairs continue the same tree.
//
// bf16 and f16 are widened to f32, combined in f32, and rounded once at the end. A mean divides the
// sum by the number of inputs before that rounding. Integers wrap around. Min and max return NaN
// when any input is NaN. Nothing is contracted to fused multiply-add.
#pragma once

#include <cstdint>
#include <span>

#include "trireme/base/dtype.h"
#include "trireme/comm/group.h"

namespace trireme {

// Where the tree over ranks [begin, end) divides. end - begin >= 2.
int tree_split(int begin, int end);

// out[i] = inputs[0][i] op inputs[1][i] op ..., associated as above, for count elements of dtype.
// out may be one of the inputs; inputs must not overlap it otherwise. At least one input, at most
// 2^24. Mean wants a floating dtype.
void reduce_tree(std::span<const void* const> inputs, void* out, std::int64_t count, DType dtype,
                 ReduceOp op);

}  // namespace trireme
