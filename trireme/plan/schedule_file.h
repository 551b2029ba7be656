// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Schedules as CSV, in the form that PyTorch's pipelining module writes and reads: a row for each
// rank, a cell for each instruction, empty cells for idle time.
//
//   0F0,0F1,,,0B0,,0B1,
//   ,1F0,1B0,,1F1,1B1,,
//
// Cells are those of schedule.h. A pair that PyTorch fuses, (0F7;1B3)OVERLAP_F_B, is read as the
// two in that order. Where a stage is, and how many micro-batches there are, is what the cells say.
#pragma once

#include <filesystem>
#include <iosfwd>
#include <string>

#include "trireme/plan/schedule.h"

namespace trireme::plan {

// Reads a schedule, which gets the name. file is what messages call the input. Nothing is proven of
// it: verify_schedule() does that. Throws ConfigError with the file, line, column (the cell's
// number in its row, both from 1), the cell and the rank: a cell that is no instruction; a stage on
// two ranks. Also for a file without instructions, and a stage that is on no rank.
Schedule read_schedule(std::istream& input, const std::string& name, const std::string& file);

// The same of a file; the schedule's name is the file's without its extension. Throws ConfigError
// also if it cannot be opened or read.
Schedule load_schedule(const std::filesystem::path& file);

// A row for each rank, no empty cells. read_schedule() makes the same schedule of it.
void write_schedule(std::ostream& output, const Schedule& schedule);

}  // namespace trireme::plan
