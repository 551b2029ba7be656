// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/optim/parameter_parts.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "trireme/ops/kernels/tasks.h"

namespace trireme::optim {

ParameterParts::ParameterParts(const std::vector<ShardPiece>& pieces,
                               const std::vector<OptimizerParameter>& parameters, std::int64_t unit,
                               const std::function<bool(const OptimizerParameter&)>& choose) {
  std::vector<std::size_t> chosen;
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    if (!choose(parameters[p])) continue;
    chosen.push_back(p);
    names_.push_back(parameters[p].entry.name);
  }
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    const ShardPiece& piece = pieces[i];
    for (const std::size_t p : chosen) {
      const FlatEntry& entry = parameters[p].entry;
      const std::int64_t end = std::min(piece.end, entry.offset + entry.count);
      for (std::int64_t at = std::max(piece.begin, entry.offset); at < end;) {
        const std::int64_t stop = std::min(end, (at / unit + 1) * unit);
        parts_.push_back({p, i, at, stop - at, at - piece.begin, elements_});
        elements_ += stop - at;
        at = stop;
      }
    }
  }
}

OptimizerState ParameterParts::state_of(const Moment& moment) const {
  std::vector<ShardPiece> pieces;
  for (const ParameterPart& part : parts_) {
    if (!pieces.empty() && pieces.back().end == part.begin) {
      pieces.back().end += part.count;
    } else {
      pieces.push_back({part.begin, part.begin + part.count, part.in_state});
    }
  }
  return {.name = moment.name(),
          .values = moment.values(),
          .pieces = std::move(pieces),
          .parameters = names_};
}

void ParameterParts::for_each(const std::function<void(const ParameterPart&)>& f) const {
  at::parallel_for(0, static_cast<std::int64_t>(parts_.size()), 1,
                   [&](std::int64_t begin, std::int64_t end) {
                     const ops::FlushDenormals flush;
                     for (std::int64_t i = begin; i < end; ++i) {
                       f(parts_[static_cast<std::size_t>(i)]);
                     }
                   });
}

}  // namespace trireme::optim
