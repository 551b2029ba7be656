// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// OpenMPI's collectives, measured as ours are. Run by peers_bench:
//
//   mpirun -n 2 mpi_peer --name openmpi --op all_reduce --bytes 64MiB

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <cstdio>
#include <exception>
#include <span>
#include <string>

#include "bench/peers/peer_main.h"
#include "trireme/base/error.h"

namespace trireme::peers {
namespace {

void check(int status, const char* what) {
  if (status != MPI_SUCCESS) throw_error<Error>("{} says {}", what, status);
}

void run_mpi(const BenchOperation& operation, const BenchVectors& v) {
  const int in = static_cast<int>(v.input.count);
  const int out = static_cast<int>(v.output.count);
  switch (operation.op) {
    case BenchOp::kAllReduce:
      return check(
          MPI_Allreduce(MPI_IN_PLACE, v.output.data, out, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD),
          "MPI_Allreduce");
    case BenchOp::kReduceScatter:
      return check(MPI_Reduce_scatter_block(v.input.data, v.output.data, out, MPI_FLOAT, MPI_SUM,
                                            MPI_COMM_WORLD),
                   "MPI_Reduce_scatter_block");
    case BenchOp::kAllGather:
      return check(
          MPI_Allgather(v.input.data, in, MPI_FLOAT, v.output.data, in, MPI_FLOAT, MPI_COMM_WORLD),
          "MPI_Allgather");
    case BenchOp::kAllToAll: {
      int size = 1;
      MPI_Comm_size(MPI_COMM_WORLD, &size);
      return check(MPI_Alltoall(v.input.data, in / size, MPI_FLOAT, v.output.data, in / size,
                                MPI_FLOAT, MPI_COMM_WORLD),
                   "MPI_Alltoall");
    }
    case BenchOp::kBroadcast:
      return check(MPI_Bcast(v.output.data, out, MPI_FLOAT, 0, MPI_COMM_WORLD), "MPI_Bcast");
    default:
      throw_error<ConfigError>("{} is not measured of OpenMPI", operation.name);
  }
}

PeerVariant openmpi(const std::string& name) {
  PeerVariant variant;
  variant.name = name;
  variant.operations = {"all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast"};
  MPI_Comm_rank(MPI_COMM_WORLD, &variant.subject.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &variant.subject.size);
  variant.subject.barrier = [] { check(MPI_Barrier(MPI_COMM_WORLD), "MPI_Barrier"); };
  variant.subject.max_over_ranks = [](std::span<double> values) {
    check(MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_DOUBLE,
                        MPI_MAX, MPI_COMM_WORLD),
          "MPI_Allreduce");
  };
  variant.subject.run = run_mpi;
  return variant;
}

int run(int argc, char** argv) {
  CLI::App app("OpenMPI's collectives, measured as ours are.", "mpi_peer");
  PeerArguments arguments;
  std::string name = "openmpi";
  add_peer_options(app, arguments);
  app.add_option("--name", name);
  CLI11_PARSE(app, argc, argv);
  try {
    run_peer(openmpi(name), arguments);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "mpi_peer: %s\n", error.what());
    return 1;
  }
}

}  // namespace
}  // namespace trireme::peers

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const int status = trireme::peers::run(argc, argv);
  if (status != 0) MPI_Abort(MPI_COMM_WORLD, status);
  MPI_Finalize();
  return status;
}
