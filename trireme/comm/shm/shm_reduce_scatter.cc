// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// reduce_scatter: every rank brings vectors of blocks, one vector or, inside a larger tree, several
// that are nodes of it; rank j gets block j of their reduction.
//
// The blocks are cut into slices that fit the cache. Rank r copies the current slice of every
// other rank's block, of each of its vectors, into its half; barrier; rank j reads what stands in
// the others' halves for it, and its own block where it is, in tree order, into its output, while
// the next slices are copied into the other halves. The caller's memory is read once and written
// once; as many barriers as the largest block has slices.
//
// Direct, where all ranks' inputs can be reached: rank j reads its block of all vectors where they
// are, between two barriers.

#include <algorithm>
#include <vector>

#include "trireme/comm/reduction_tree.h"
#include "trireme/comm/shm/shm_copy.h"
#include "trireme/comm/shm/shm_operation.h"

namespace trireme {
namespace {

// A plain reduce_scatter: each rank brings its leaf.
PartialReduction whole_tree(int ranks) {
  PartialReduction whole;
  whole.leaves = ranks;
  for (int rank = 0; rank < ranks; ++rank) whole.inputs.push_back({{rank, rank + 1}});
  whole.outputs = {{0, ranks}};
  whole.finish = true;
  return whole;
}

class ReduceScatter {
 public:
  ReduceScatter(ShmOperation& operation, const PartialReduction& partial)
      : operation_(operation), collective_(operation.collective()), partial_(partial) {
    for (const auto& nodes : partial.inputs) most_ = std::max(most_, nodes.size());
    const std::size_t places = std::max<std::size_t>(1, operation.others() * most_);
    place_bytes_ = round_down_to_line(std::min(ShmHalf::kBytes / places, kMostPlaceBytes));
    cut();
    line_up_inputs();
  }

  void run() {
    for (std::int64_t slice = 0; slice < slices_; ++slice) {
      copy_in(slice);
      operation_.meet();
      reduce(slice_of(operation_.rank(), slice));
    }
  }

  void run_direct() {
    direct_ = true;
    const Block& own = block(operation_.rank());
    if (own.count > 0) reduce({0, own.count});
    std::size_t others = 0;  // elements of other ranks' blocks
    for (int rank = 0; rank < operation_.size(); ++rank) {
      if (rank != operation_.rank()) others += static_cast<std::size_t>(block(rank).count);
    }
    operation_.count_sent(others * own_vectors() * element_bytes());
    operation_.meet();
  }

  bool is_small() const {
    std::int64_t longest = 0;
    for (const Block& block : collective_.blocks) longest = std::max(longest, block.count);
    return static_cast<std::size_t>(longest) * element_bytes() <= kSmallBytes;
  }
  // Of the input that others read: up to the end of the last vector.
  std::size_t input_bytes() const {
    std::int64_t end = 0;
    for (const Block& block : collective_.blocks) end = std::max(end, block.offset + block.count);
    if (own_vectors() == 0 || end == 0) return 0;
    end += (static_cast<std::int64_t>(own_vectors()) - 1) * partial_.input_stride;
    return static_cast<std::size_t>(end) * element_bytes();
  }

 private:
  // One input vector of some rank, in the order of the tree.
  struct Input {
    TreeNode node;
    int rank;
    std::size_t vector;
  };

  void cut() {
    std::int64_t longest = 0;
    for (const Block& block : collective_.blocks) longest = std::max(longest, block.count);
    const auto line = static_cast<std::int64_t>(kCacheLineBytes / element_bytes());
    const auto fits = static_cast<std::int64_t>(place_bytes_ / element_bytes());
    slices_ = std::max<std::int64_t>(1, (longest + fits - 1) / fits);
    slice_ = std::max(line, ((longest + slices_ - 1) / slices_ + line - 1) / line * line);
  }

  void line_up_inputs() {
    for (int rank = 0; rank < operation_.size(); ++rank) {
      const auto& nodes = partial_.inputs[static_cast<std::size_t>(rank)];
      for (std::size_t v = 0; v < nodes.size(); ++v) inputs_.push_back({nodes[v], rank, v});
    }
    std::sort(inputs_.begin(), inputs_.end(),
              [](const Input& a, const Input& b) { return a.node.begin < b.node.begin; });
  }

  std::size_t element_bytes() const { return dtype_bytes(collective_.input.dtype); }
  const Block& block(int rank) const { return collective_.blocks[static_cast<std::size_t>(rank)]; }
  Block slice_of(int rank, std::int64_t slice) const {
    const std::int64_t begin = std::min(block(rank).count, slice * slice_);
    return {begin, std::min(slice_, block(rank).count - begin)};
  }
  // Where what `from` brings for `to` stands in its half.
  std::size_t place(int from, int to, std::size_t vector) const {
    const int n = operation_.size();
    const auto at = static_cast<std::size_t>((to - from - 1 + n) % n);
    return (at * most_ + vector) * place_bytes_;
  }
  std::size_t own_vectors() const {
    return partial_.inputs[static_cast<std::size_t>(operation_.rank())].size();
  }
  // From the start of a rank's input to element `index` of its block for `to`, in one vector.
  std::size_t input_offset(int to, std::size_t vector, std::int64_t index) const {
    const auto base = static_cast<std::int64_t>(vector) * partial_.input_stride;
    return static_cast<std::size_t>(base + block(to).offset + index) * element_bytes();
  }
  const std::byte* own_input(int to, std::size_t vector, std::int64_t index) const {
    return element(collective_.input, 0) + input_offset(to, vector, index);
  }
  // What `from` brings for this rank.
  const std::byte* input_of(int from, std::size_t vector, std::int64_t index) const {
    const int rank = operation_.rank();
    if (direct_) return operation_.data(from) + input_offset(rank, vector, index);
    if (from == rank) return own_input(rank, vector, index);
    return operation_.published(from) + place(from, rank, vector);
  }

  void copy_in(std::int64_t slice) {
    const std::size_t vectors = own_vectors();
    for (int i = 1; i < operation_.size(); ++i) {
      const int to = (operation_.rank() + i) % operation_.size();
      const Block part = slice_of(to, slice);
      const std::size_t bytes = static_cast<std::size_t>(part.count) * element_bytes();
      if (bytes == 0) continue;
      for (std::size_t v = 0; v < vectors; ++v) {
        copy_bytes(operation_.own() + place(operation_.rank(), to, v),
                   own_input(to, v, part.offset), bytes);
      }
      operation_.count_sent(bytes * vectors);
    }
  }

  void reduce(const Block& part) {
    if (part.count == 0) return;
    for (std::size_t i = 0; i < partial_.outputs.size(); ++i) {
      const std::int64_t base = static_cast<std::int64_t>(i) * partial_.output_stride;
      combine(partial_.outputs[i], part, element(collective_.output, base + part.offset));
    }
  }

  void combine(const TreeNode& output, const Block& part, void* out) {
    nodes_.clear();
    addresses_.clear();
    for (const Input& input : inputs_) {
      if (input.node.begin < output.begin || input.node.end > output.end) continue;
      nodes_.push_back(input.node);
      addresses_.push_back(input_of(input.rank, input.vector, part.offset));
    }
    const NodeReduction reduction{partial_.leaves,           nodes_,
                                  collective_.input.dtype,   collective_.output.dtype,
                                  operation_.signature().op, partial_.finish};
    reduce_nodes(reduction, addresses_, out, part.count);
  }

  ShmOperation& operation_;
  const Collective& collective_;
  const PartialReduction& partial_;
  bool direct_ = false;   // inputs are read where they are
  std::size_t most_ = 0;  // vectors of a rank
  std::size_t place_bytes_ = 0;
  std::int64_t slices_ = 1;
  std::int64_t slice_ = 0;  // elements
  std::vector<Input> inputs_;
  // Of one reduction.
  std::vector<TreeNode> nodes_;
  std::vector<const void*> addresses_;
};

}  // namespace

void shm_reduce_scatter(ShmOperation& operation) {
  const PartialReduction* partial = operation.collective().partial;
  const PartialReduction whole =
      partial == nullptr ? whole_tree(operation.size()) : PartialReduction{};
  ReduceScatter reduction(operation, partial == nullptr ? whole : *partial);
  const void* input = operation.collective().input.data;
  if (operation.may_be_direct() && !reduction.is_small() &&
      operation.meet_directly(input, reduction.input_bytes())) {
    return reduction.run_direct();
  }
  reduction.run();
}

}  // namespace trireme
