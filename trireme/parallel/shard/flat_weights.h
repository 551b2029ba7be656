// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// FlatWeights: every rank keeps all weights that compute (stages 0 to 2), and of bf16's f32 masters
// those that it updates.
#pragma once

#include <vector>

#include "trireme/parallel/communication_thread.h"
#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/shard/weight_store.h"

namespace trireme {

class FlatWeights final : public WeightStore {
 public:
  // masters: f32 pieces, one after the other; undefined in f32.
  FlatWeights(FlatParameters& flat, at::Tensor masters, Group& group, WeightStoreOptions options);

  std::vector<Piece> pieces() override;
  void publish() override;
  void begin_pass() override {}
  void enter(std::size_t, bool) override {}
  void leave(std::size_t, bool) override {}
  void release(std::size_t) override {}
  void end_pass() override {}
  void hold(bool) override {}

 private:
  FlatParameters& flat_;
  const at::Tensor masters_;
  const WeightStoreOptions options_;
  Group& group_;
  const std::vector<ShardPiece> pieces_;
};

}  // namespace trireme
