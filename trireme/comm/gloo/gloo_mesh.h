// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Connections between every two ranks of a world, on the Gloo library's TCP transport. One mesh
// carries all gloo groups of the world: messages are told apart by slot, and messages of one slot
// between two ranks arrive in the order in which they were sent. Each connection is proven by both
// ranks, with the job's secret; what then travels is neither signed nor encrypted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trireme/base/deadline.h"
#include "trireme/comm/failure.h"
#include "trireme/comm/meeting/control_plane.h"
#include "trireme/comm/meeting/rendezvous.h"

namespace gloo::transport {
class Context;
class Device;
class UnboundBuffer;
}  // namespace gloo::transport

namespace trireme {

class GlooMesh {
 public:
  // Collective over the world. Binds to options.network_interface, a name or an address of this
  // host; when that is empty, to the address that this rank has on the way to rank 0. Throws
  // ConfigError when it cannot be bound, or is a loopback address although options.address is not
  // and there are ranks on other hosts; TimeoutError; the latched failure.
  GlooMesh(const WorldOptions& options, const std::vector<Member>& members, ControlPlane& control,
           const FailureLatch& latch, const Deadline& deadline);
  ~GlooMesh();

  // Memory to send from or to receive into. Any thread.
  std::unique_ptr<gloo::transport::UnboundBuffer> buffer(void* data, std::size_t bytes);

 private:
  void close_pairs();

  int rank_;
  int size_;
  std::shared_ptr<gloo::transport::Device> device_;
  std::shared_ptr<gloo::transport::Context> context_;
};

}  // namespace trireme
