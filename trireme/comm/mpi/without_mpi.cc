// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Stands for the rest of this folder in a build without MPI.

#include "trireme/base/error.h"
#include "trireme/comm/engine.h"
#include "trireme/comm/mpi/mpi_support.h"

namespace trireme {
namespace {

[[noreturn]] void refuse() {
  throw_error<ConfigError>(
      "this build has no MPI: install libopenmpi-dev or libmpich-dev and build again");
}

}  // namespace

std::string mpi_library() { return {}; }
void require_mpi(int /*world_size*/) { refuse(); }

std::shared_ptr<MpiMesh> make_mpi_mesh(int /*rank*/, int /*world_size*/, ControlPlane& /*control*/,
                                       const FailureLatch& /*latch*/,
                                       const Deadline& /*deadline*/) {
  refuse();
}
void leave_mpi(MpiMesh& /*mesh*/, const Deadline& /*deadline*/) { refuse(); }
std::unique_ptr<Engine> make_mpi_engine(const GroupScope& /*scope*/) { refuse(); }

}  // namespace trireme
