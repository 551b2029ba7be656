// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The one order in which values of several ranks are combined, and the kernels that do it.
//
// The tree over ranks [a, b) is: the tree over [a, m) on the left, the tree over [m, b) on the
// right, m = a + the largest power of two below b - a. Six ranks give ((0+1)+(2+3))+(4+5). The tree
// depends on nothing but the number of ranks, so every engine and algorithm that reduces with
// reduce_tree() gives the same bits; and since a subtree over 2^k aligned ranks is whole, ranks
// that first combine their own leaves in pairs continue the same tree.
//
// bf16 and f16 are widened to f32, combined in f32, and rounded once at the end. A mean divides the
// sum by the number of leaves before that rounding. Integers wrap around. Min and max return NaN
// when any input is NaN. Nothing is contracted to fused multiply-add.
//
// A reduction may be done in pieces: whoever has some leaves combines those that form whole nodes
// of the tree (tree_cover), unrounded in accumulation_dtype, and someone else combines the nodes
// (reduce_nodes). The bits are those of the whole.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

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

// A node of the tree over all leaves: leaves [begin, end).
struct TreeNode {
  int begin = 0;
  int end = 0;
  bool operator==(const TreeNode&) const = default;
};

// The fewest nodes of the tree over [0, leaves) that together are exactly the given leaves
// (ascending). Leaves that lie side by side need at most 2 log2(leaves) nodes.
std::vector<TreeNode> tree_cover(int leaves, std::span<const int> given);

// The dtype in which values of dtype are combined: f32 for bf16 and f16, else dtype itself.
DType accumulation_dtype(DType dtype);

// A reduce_scatter of values that are nodes of a larger tree. Rank r of the group brings
// inputs[r].size() vectors, one node each; together the inputs are every leaf of each output once.
// The nodes of one output may lie with any ranks: combining them needs them in order of leaves.
struct PartialReduction {
  int leaves = 0;                             // of the whole tree
  std::vector<std::vector<TreeNode>> inputs;  // by rank
  std::vector<TreeNode> outputs;
  // Elements from one vector to the next: inside the input, of which the collective's blocks
  // describe the first vector, and inside the output.
  std::int64_t input_stride = 0;
  std::int64_t output_stride = 0;
  // False: the outputs are unrounded and undivided, in accumulation_dtype. True: the only output is
  // the whole tree, finished, in the dtype of the collective's output.
  bool finish = false;
};

// out = the node that the inputs together form, associated as in the tree over `leaves` leaves.
// nodes[i] is what inputs[i] is, ascending and side by side. in_dtype: dtype, or (values that are
// nodes already) accumulation_dtype(dtype). out_dtype: dtype to finish (rounded, and divided by
// leaves for a mean), or accumulation_dtype(dtype) with finish false. out may be an input where
// in_dtype is out_dtype. Throws InternalError when the inputs do not form a node.
struct NodeReduction {
  int leaves = 0;
  std::span<const TreeNode> nodes;
  DType in_dtype = DType::kF32;
  DType out_dtype = DType::kF32;
  ReduceOp op = ReduceOp::kSum;
  bool finish = true;
};
void reduce_nodes(const NodeReduction& reduction, std::span<const void* const> inputs, void* out,
                  std::int64_t count);

// The same as a plan, for whoever computes elsewhere than here: inputs are taken from left to right
// onto a stack, and after input i the two topmost results are combined combines[i] times. Returns
// what the last result is divided by; 0: nothing. combines has a place for each node.
int plan_combines(const NodeReduction& reduction, std::span<std::uint8_t> combines);

}  // namespace trireme
