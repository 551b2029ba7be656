// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// DeviceWeights: all weights that compute lie on a device (stages 0 to 2 with offload); in host
// memory lie those that this rank updates, f32, and beside bf16 or f16 their rounded copies.
#pragma once

#include <vector>

#include "trireme/parallel/flat_parameters.h"
#include "trireme/parallel/shard/device_gather.h"
#include "trireme/parallel/shard/device_link.h"
#include "trireme/parallel/shard/own_weights.h"
#include "trireme/parallel/shard/weight_store.h"

namespace trireme {

class DeviceWeights final : public WeightStore {
 public:
  // flat, on the device of options.link, has the weights of masters, f32 pieces one after the
  // other.
  DeviceWeights(FlatParameters& flat, const at::Tensor& masters, Group& group,
                WeightStoreOptions options);

  std::vector<Piece> pieces() override { return own_.for_optimizer(); }
  // Segment after segment is gathered and sent; the pieces may change again when all have come.
  void publish() override;
  void begin_pass() override {}
  void enter(std::size_t, bool) override {}
  void leave(std::size_t, bool) override {}
  void release(std::size_t) override {}
  void end_pass() override {}
  void hold(bool) override {}

 private:
  FlatParameters& flat_;
  const WeightStoreOptions options_;
  Group& group_;
  const OwnWeights own_;
  DeviceGather gather_;
};

}  // namespace trireme
