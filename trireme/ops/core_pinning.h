// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Which cores compute threads run on.
//
// The ranks of a host share its cores in contiguous parts, rank by rank, and the threads of a rank
// share its part. Each thread may run on its own share alone: where there is a core for each thread
// the system never moves one or puts two on the same; where there are more, it may choose among
// those of the share, so that two runs that know nothing of each other need not collide.
//
//   cores 0 1 2 3 4 5 6 7, two ranks of two threads:   rank 0: {0 1} {2 3}   rank 1: {4 5} {6 7}
#pragma once

#include <string>
#include <vector>

namespace trireme {

// Who shares the cores of this host.
struct CoreShares {
  int threads = 1;  // of each rank
  int local_rank = 0;
  int local_size = 1;
};

// The cores of each thread of this rank. Empty, for all ranks, when there are not enough for
// all their threads.
std::vector<std::vector<int>> share_cores(const std::vector<int>& cores, const CoreShares& shares);

// Pins this thread, which becomes the first of its OpenMP team, and the others of the team. Threads
// started later, by whomever, may run on all of process_cores() (base/process_cores.h) and not only
// where the thread that starts them does; child processes inherit. Nothing is pinned, and what was
// no longer is, when there are too few cores or the system refuses; returns the reason then, else
// "".
std::string pin_team(const CoreShares& shares);

// Lets a team of so many threads run on all of process_cores() again.
void unpin_team(int threads);

}  // namespace trireme
