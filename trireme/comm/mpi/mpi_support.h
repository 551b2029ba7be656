// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// What the rest of this layer knows of MPI. Builds without MPI have these functions, too; they
// refuse.
#pragma once

#include <memory>
#include <string>

#include "trireme/base/deadline.h"
#include "trireme/comm/failure.h"
#include "trireme/comm/meeting/control_plane.h"

namespace trireme {

class MpiMesh;

// What MPI calls itself, "Open MPI v4.1.4"; empty in a build without MPI.
std::string mpi_library();

// Whether MPI can be had by a rank of a world of this size, as far as this can be seen before MPI
// is initialised and before any socket opens. Throws ConfigError when the build has no MPI, when no
// MPI launcher started this process, when that launcher started another number of ranks, or when
// the program itself initialised MPI for too few threads, or finalized it. Takes MPI's lock.
void require_mpi(int world_size);

// Collective over the world; see mpi_mesh.h. Initialises MPI where the program has not, and then
// finalizes it when the process exits. Throws ConfigError, TimeoutError, the latched failure.
std::shared_ptr<MpiMesh> make_mpi_mesh(int rank, int world_size, ControlPlane& control,
                                       const FailureLatch& latch, const Deadline& deadline);

// MpiMesh::leave().
void leave_mpi(MpiMesh& mesh, const Deadline& deadline);

}  // namespace trireme
