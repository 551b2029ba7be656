// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/schedule_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <istream>
#include <map>
#include <optional>
#include <ostream>
#include <string_view>
#include <utility>
#include <vector>

#include "trireme/base/error.h"

namespace trireme::plan {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const std::size_t begin = text.find_first_not_of(kBlank);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kBlank) - begin + 1);
}

// The pieces between separators; one for text without any.
std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> pieces;
  while (true) {
    const std::size_t end = text.find(separator);
    pieces.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return pieces;
    text.remove_prefix(end + 1);
  }
}

// The instructions of a cell: none, one, or the two of a fused pair. Nothing for another text.
std::optional<std::vector<Instruction>> parse_cell(std::string_view cell) {
  constexpr std::string_view kFused = ")OVERLAP_F_B";
  std::vector<Instruction> instructions;
  if (cell.empty()) return instructions;
  std::vector<std::string_view> texts = {cell};
  if (cell.front() == '(') {
    if (!cell.ends_with(kFused)) return std::nullopt;
    texts = split(cell.substr(1, cell.size() - 1 - kFused.size()), ';');
    if (texts.size() != 2) return std::nullopt;
  }
  for (const std::string_view text : texts) {
    const std::optional<Instruction> instruction = parse_instruction(trimmed(text));
    if (!instruction) return std::nullopt;
    instructions.push_back(*instruction);
  }
  return instructions;
}

class Reader {
 public:
  Reader(const std::string& name, const std::string& file) : file_(file) { schedule_.name = name; }

  void add_row(std::string_view row) {
    const int rank = schedule_.ranks++;
    schedule_.of_rank.emplace_back();
    std::size_t column = 0;
    for (const std::string_view untrimmed : split(row, ',')) {
      const std::string_view cell = trimmed(untrimmed);
      ++column;
      const auto instructions = parse_cell(cell);
      if (!instructions) {
        throw_error<ConfigError>(
            "{}: '{}' is no instruction; wanted one like 0F3, 1I0, 2RECV_F4, 0UNSHARD or STEP",
            place(rank, column), cell);
      }
      for (const Instruction& instruction : *instructions) {
        note_stage(instruction, rank, column, cell);
        schedule_.micro_batches = std::max(schedule_.micro_batches, instruction.micro_batch + 1);
        schedule_.of_rank.back().push_back(instruction);
      }
    }
  }

  Schedule finish() {
    if (rank_of_stage_.empty()) {
      throw_error<ConfigError>(
          "{}: no instruction of a stage in {} row(s); wanted a row for each rank", file_,
          schedule_.ranks);
    }
    for (const auto& [stage, rank] : rank_of_stage_) {
      const int next = schedule_.stages();
      if (stage != next) {
        throw_error<ConfigError>("{}: stage {} is on rank {}, but stage {} is on no rank", file_,
                                 stage, rank, next);
      }
      schedule_.rank_of_stage.push_back(rank);
    }
    return std::move(schedule_);
  }

 private:
  std::string place(int rank, std::size_t column) const {
    return fmt::format("{}, line {}, column {} (rank {})", file_, rank + 1, column, rank);
  }

  void note_stage(const Instruction& instruction, int rank, std::size_t column,
                  std::string_view cell) {
    if (instruction.stage < 0) return;
    const int other = rank_of_stage_.emplace(instruction.stage, rank).first->second;
    if (other == rank) return;
    throw_error<ConfigError>("{}: '{}', but stage {} is on rank {}: line {}", place(rank, column),
                             cell, instruction.stage, other, other + 1);
  }

  // Constant after construction.
  std::string file_;

  std::map<int, int> rank_of_stage_;
  Schedule schedule_;
};

}  // namespace

Schedule read_schedule(std::istream& input, const std::string& name, const std::string& file) {
  Reader reader(name, file);
  int blank = 0;  // rows at the end without cells are none
  for (std::string row; std::getline(input, row);) {
    if (trimmed(row).empty()) {
      ++blank;
      continue;
    }
    for (; blank > 0; --blank) reader.add_row("");
    reader.add_row(row);
  }
  if (input.bad()) throw_error<ConfigError>("{}: cannot be read: {}", file, std::strerror(errno));
  return reader.finish();
}

Schedule load_schedule(const std::filesystem::path& file) {
  std::ifstream input(file);
  if (!input) {
    throw_error<ConfigError>("schedule file {} cannot be opened: {}", file.string(),
                             std::strerror(errno));
  }
  return read_schedule(input, file.stem().string(), file.string());
}

void write_schedule(std::ostream& output, const Schedule& schedule) {
  for (const std::vector<Instruction>& list : schedule.of_rank) {
    const char* separator = "";
    for (const Instruction& instruction : list) {
      output << separator << to_string(instruction);
      separator = ",";
    }
    output << '\n';
  }
}

}  // namespace trireme::plan
