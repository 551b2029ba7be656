// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// WholeLayout: the model put together again from ranks that have parts of its parameters, for
// whoever writes it down.
//
//   const WholeLayout whole(sharded.layout(), &tp);
//   const at::Tensor own = sharded.gather_weights();            // this rank's parts
//   if (own.defined()) save(whole.layout(), whole.gather(own)); // the model, on rank 0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "trireme/parallel/module_layout.h"

namespace trireme {

class Group;

// Not thread-safe. The group outlives it.
class WholeLayout {
 public:
  // own: with its entries' parts. group: the ranks that have the model between them, all with
  // entries of the same names in the same order; null: this rank has all of it. Collective,
  // blocking. Throws CommError.
  WholeLayout(const ModuleLayout& own, Group* group);

  // Entries and size alone; the same on all ranks.
  const ModuleLayout& layout() const { return layout_; }
  // f32 [own.size] of each rank -> f32 [layout().size] on rank 0, undefined elsewhere. What several
  // have is the lowest rank's. Collective, blocking. Throws CommError.
  at::Tensor gather(const at::Tensor& own) const;

 private:
  // A rank's part of an entry, and where it is in that rank's buffer.
  struct Place {
    std::int64_t offset = 0, begin = 0, size = 0;
  };
  struct RankLayout {
    std::int64_t size = 0;
    std::vector<Place> places;  // by entry
  };

  void put(const at::Tensor& own, int rank, const at::Tensor& whole) const;

  Group* group_;
  ModuleLayout layout_;
  std::vector<int> dims_;  // by entry: the one that is cut; -1: none
  std::vector<RankLayout> ranks_;
};

}  // namespace trireme
