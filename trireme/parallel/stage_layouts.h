// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// StageLayouts: a model whose parameters lie in several flat buffers, on one rank or on the ranks
// of a pipeline, seen as one.
//
//   const StageLayouts whole({&first.layout(), &second.layout()}, names, pp);
//   whole.gather({first_values, second_values});              // on rank 0: in the order of names
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "trireme/parallel/module_layout.h"

namespace trireme {

class Group;

// Not thread-safe.
class StageLayouts {
 public:
  // own: of this rank's buffers. names: of all parameters of the model, in its order; each is in
  // one buffer of one rank. group: the ranks that have buffers of the model; null: this one alone.
  // Collective, blocking. Throws CommError; ConfigError for a parameter that is in none, or in
  // several (names it).
  StageLayouts(const std::vector<const ModuleLayout*>& own, const std::vector<std::string>& names,
               Group* group);

  // f32 buffers of this rank, each [its layout's size] -> f32 [layout().size] on rank 0, undefined
  // elsewhere. Collective, blocking. Throws CommError.
  at::Tensor gather(const std::vector<at::Tensor>& own) const;
  // Entries and size alone; on rank 0 (others have it too).
  const ModuleLayout& layout() const { return layout_; }

 private:
  struct Place {
    std::int64_t rank = 0, buffer = 0, offset = 0, buffer_size = 0;
  };
  Group* group_;
  ModuleLayout layout_;
  std::vector<Place> places_;  // by entry; none where there is one buffer on one rank
};

}  // namespace trireme
