// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/engine.h"
#include "trireme/comm/message/message_engine.h"
#include "trireme/comm/mpi/mpi_port.h"

namespace trireme {

std::unique_ptr<Engine> make_mpi_engine(const GroupScope& scope) {
  const auto port = std::make_shared<MpiPort>(scope);
  return make_message_engine(scope, port, port, make_host_memory());
}

}  // namespace trireme
