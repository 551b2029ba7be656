// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// UnitWeights: a rank keeps its pieces of the weights alone; a unit's are gathered when they are
// needed and freed after (stage 3).
//
// A unit's parameters are views of one tensor whose memory comes and goes: views that autograd has
// saved are views of the same storage and find the memory again when backward gathers it. While a
// unit is away its parameters have no elements, so that a use outside of run() is an error of
// shapes and not a read of freed memory.
//
// Units are gathered ahead in the order in which the last forward pass entered them, in backward
// passes the other way around; where a pass goes another way, nothing is ahead until the next.
//
// Where a device computes, pieces lie in host memory and the tensor on the device. Its memory is
// given back while kernels that read it may still be queued there: what writes it next, a copy,
// comes after all that was queued when its gather began.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "trireme/comm/group.h"
#include "trireme/parallel/communication_thread.h"
#include "trireme/parallel/module_layout.h"
#include "trireme/parallel/shard/buffer_pool.h"
#include "trireme/parallel/shard/device_gather.h"
#include "trireme/parallel/shard/device_link.h"
#include "trireme/parallel/shard/own_weights.h"
#include "trireme/parallel/shard/weight_store.h"

namespace trireme {

class UnitWeights final : public WeightStore {
 public:
  // layout and link must outlive it. Parameters become of options.dtype, and stay whole until
  // shrink(). masters: this rank's pieces in f32. Throws ConfigError for a budget that the largest
  // unit and the weights of no unit exceed.
  UnitWeights(ModuleLayout& layout, const at::Tensor& masters, Group& group,
              WeightStoreOptions options);

  // Frees all weights but this rank's pieces.
  void shrink();
  std::int64_t bytes_sent() { return thread_.group().bytes_sent(); }

  std::vector<Piece> pieces() override { return own_.for_optimizer(); }
  void publish() override {}
  void begin_pass() override;
  void enter(std::size_t unit, bool backward) override;
  void leave(std::size_t unit, bool backward_follows) override;
  void release(std::size_t unit) override;
  void end_pass() override;
  void hold(bool held) override;

 private:
  struct Unit {
    std::vector<std::size_t> entries;
    at::Tensor full;                 // all of it; memory only while attached
    std::vector<at::Tensor> places;  // of the entries in full
    at::Tensor buffer;               // the memory, while gathered or on its way
    CommunicationThread::Ticket ticket = 0;
    DevicePoint copied;  // with a link, once the ticket is done: the weights are on the device
    bool attached = false;
  };

  void start_gather(std::size_t unit);
  // On the communication thread.
  void gather(Group& wire, std::size_t unit, const at::Tensor& buffer, const DevicePoint& computed);
  void attach(std::size_t unit);
  void detach(std::size_t unit);
  void gather_ahead(std::size_t unit, bool backward);
  std::int64_t unit_bytes(std::size_t unit) const;

  ModuleLayout& layout_;
  const WeightStoreOptions options_;
  const OwnWeights own_;
  const at::Tensor nothing_;  // what a parameter is while its unit is away
  std::vector<Unit> units_;
  BufferPool pool_;
  std::vector<std::size_t> order_;  // of the last forward pass
  std::vector<std::size_t> seen_;   // of this one
  std::int64_t gathered_bytes_ = 0;
  bool held_ = false;
  std::optional<DeviceGather> gather_;  // with a link; of the communication thread
  CommunicationThread thread_;
};

}  // namespace trireme
