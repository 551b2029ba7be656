// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/parallel/shard/piece_parts.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/comm/group.h"
#include "trireme/parallel/tensor_buffer.h"

namespace trireme {

PieceParts::PieceParts(const ModuleLayout& layout, const std::vector<ShardPiece>& shard_pieces,
                       ModelParts parts)
    : parts_(std::move(parts)),
      elsewhere_(find(layout, shard_pieces, parts_.counted_elsewhere, parts_.group)) {
  for (const PartialGradients& partial : parts_.partial) {
    partial_.push_back(find(layout, shard_pieces, partial.parameters, partial.group));
  }
}

PieceParts::Elements PieceParts::find(const ModuleLayout& layout,
                                      const std::vector<ShardPiece>& shard_pieces,
                                      const std::vector<std::string>& parameters, Group* group) {
  Elements elements{.group = group};
  for (const std::string& name : parameters) {
    const auto entry = std::find_if(layout.entries.begin(), layout.entries.end(),
                                    [&](const FlatEntry& e) { return e.name == name; });
    if (entry == layout.entries.end()) {
      throw_error<ConfigError>("the parts of a model name a parameter {}, which it does not have",
                               name);
    }
    for (std::size_t i = 0; i < shard_pieces.size(); ++i) {
      const ShardPiece& piece = shard_pieces[i];
      const std::int64_t begin = std::max(piece.begin, entry->offset);
      const std::int64_t end = std::min(piece.end, entry->offset + entry->count);
      if (begin >= end) continue;
      elements.runs.push_back(
          {i, begin - piece.begin, elements.count + begin - entry->offset, end - begin});
    }
    elements.count += entry->count;
  }
  return elements;
}

void PieceParts::sum_partial(std::span<const optim::PieceUpdate> pieces, Group* shard) const {
  for (const Elements& elements : partial_) {
    const at::Tensor sums = at::zeros({elements.count}, at::TensorOptions().dtype(at::kFloat));
    const auto exchange = [&](const auto& copy) {
      for (const Run& run : elements.runs) {
        copy(sums.narrow(0, run.in_vector, run.count),
             pieces[run.piece].gradients.narrow(0, run.in_piece, run.count));
      }
    };
    exchange([](at::Tensor sum, const at::Tensor& gradient) { sum.copy_(gradient); });
    // Exact: all but one summand of an element are zeros.
    if (shard != nullptr) shard->all_reduce(buffer_of_tensor(sums));
    elements.group->all_reduce(buffer_of_tensor(sums));
    exchange([](const at::Tensor& sum, at::Tensor gradient) { gradient.copy_(sum); });
  }
}

double PieceParts::squares_elsewhere(std::span<const optim::PieceUpdate> pieces,
                                     Group* shard) const {
  if (parts_.group == nullptr) return 0;
  double elsewhere = 0;
  for (const Run& run : elsewhere_.runs) {
    const at::Tensor gradient =
        pieces[run.piece].gradients.narrow(0, run.in_piece, run.count).to(at::kDouble);
    elsewhere += gradient.dot(gradient).item<double>();
  }
  if (shard != nullptr) shard->all_reduce(buffer_of(std::span(&elsewhere, 1)));
  return elsewhere;
}

double PieceParts::whole_norm(double norm, double squares_elsewhere) const {
  if (parts_.group == nullptr) return norm;
  double squares = norm * norm - squares_elsewhere;
  parts_.group->all_reduce(buffer_of(std::span(&squares, 1)));
  // NaN stays NaN.
  return squares < 0 ? 0 : std::sqrt(squares);
}

}  // namespace trireme
