// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Snapshots: all that the servers hold, as a checkpoint on disk (checkpoint/checkpoint.h), for
// another run on any number of servers and workers.
//
//   if (worker.rank() == 0) ps::save_snapshot(worker, "runs/clicks/snapshots", worker.clock());
//   ...
//   if (worker.rank() == 0) step = ps::load_snapshot(worker, resolve_checkpoint("runs/clicks"));
//
// Each server writes the files of its ranges (range-00012.state: dense_storage.cc and
// slice_storage.cc have their formats), so the folder must be on storage that all hosts share. A
// snapshot appears whole or not at all; files that are damaged are refused by name.
#pragma once

#include <cstdint>
#include <string>

#include "trireme/ps/worker.h"

namespace trireme::ps {

// One worker calls it, before its first push of a step. With consistency sync that is one moment:
// the end of the step before. Otherwise each range is of a moment of its own, whole in itself.
// Blocks; the other workers go on as far as consistency allows. Returns the snapshot's path. Throws
// CheckpointError; CommError as Worker does, and where a server cannot write.
std::string save_snapshot(Worker& worker, const std::string& folder, std::int64_t step);

// In place of Worker::init(), by the same worker. Returns the step that it was saved with. Blocks.
// Where the job has another number of slices than the snapshot, all of it goes through this
// worker's memory, and each row to the slice that its id has now; else the servers read their
// ranges. Throws CheckpointError: a damaged file, a snapshot of a job whose ranges are others (says
// what differs).
std::int64_t load_snapshot(Worker& worker, const std::string& path);

}  // namespace trireme::ps
