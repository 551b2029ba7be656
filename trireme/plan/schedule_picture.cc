// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/schedule_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstddef>
#include <string_view>
#include <vector>

#include "trireme/base/error.h"
#include "trireme/plan/internal/index.h"

namespace trireme::plan {
namespace {

struct Style {
  Action action;
  char letter;
  std::string_view meaning;
  std::string_view colour;  // ANSI: black on a background
};

constexpr std::array<Style, 4> kStyles = {{
    {Action::kForward, 'F', "forward", "\x1b[30;44m"},
    {Action::kBackward, 'B', "backward", "\x1b[30;42m"},
    {Action::kBackwardInput, 'I', "backward of the input", "\x1b[30;46m"},
    {Action::kBackwardWeight, 'W', "backward of the weights", "\x1b[30;43m"},
}};
constexpr std::string_view kPlain = "\x1b[0m";

const Style* style_of(Action action) {
  const auto* const found = std::find_if(
      kStyles.begin(), kStyles.end(), [&](const Style& style) { return style.action == action; });
  return found == kStyles.end() ? nullptr : found;
}

// One column of a row.
struct Cell {
  char text = '.';
  const Style* style = nullptr;
};

class Picture {
 public:
  Picture(const Schedule& schedule, const ScheduleReport& report, const PictureOptions& options)
      : schedule_(schedule), report_(report), options_(options) {
    label_ = fmt::format("rank {}", schedule.ranks - 1).size();
    const std::size_t frame = label_ + 3;  // " |" and "|"
    if (options.width <= static_cast<int>(frame)) {
      throw_error<ConfigError>("schedule {}: a picture {} columns wide, wanted at least {}",
                               schedule.name, options.width, frame + 1);
    }
    choose_scale(index(options.width) - frame);
  }

  std::string draw() const {
    std::string text = head();
    for (int rank = 0; rank < schedule_.ranks; ++rank) {
      text += fmt::format("{:<{}} |{}|\n", fmt::format("rank {}", rank), label_, row(rank));
    }
    return text + legend();
  }

 private:
  void choose_scale(std::size_t room) {
    double shortest = report_.step_us;
    for (const RankReport& rank : report_.ranks) {
      for (const Span& span : rank.timeline) {
        const double time = span.end_us - span.start_us;
        if (is_compute(span.instruction.action) && time > 0) shortest = std::min(shortest, time);
      }
    }
    const double units = shortest > 0 ? report_.step_us / shortest : 0;
    const std::size_t text = 1 + std::to_string(schedule_.micro_batches - 1).size();
    numbered_ = std::round(units * static_cast<double>(text)) <= static_cast<double>(room);
    const double wanted = numbered_ ? units * static_cast<double>(text) : units;
    columns_ = std::min(room, static_cast<std::size_t>(std::round(wanted)));
  }

  std::size_t column(double time_us) const {
    if (report_.step_us <= 0) return 0;
    const double at = time_us / report_.step_us * static_cast<double>(columns_);
    return std::min(columns_, static_cast<std::size_t>(std::round(at)));
  }

  // Small for the rank's chunks after its first.
  char letter(const Instruction& instruction, const Style& style) const {
    const int rank = schedule_.rank_of_stage[index(instruction.stage)];
    const bool first = stages_of_rank(schedule_.rank_of_stage, rank).front() == instruction.stage;
    return first ? style.letter : static_cast<char>(std::tolower(style.letter));
  }

  std::vector<Cell> cells(int rank) const {
    std::vector<Cell> cells(columns_);
    for (const Span& span : report_.ranks[index(rank)].timeline) {
      const Style* style = style_of(span.instruction.action);
      if (style == nullptr) continue;
      const std::string number = std::to_string(span.instruction.micro_batch);
      std::string text(1, letter(span.instruction, *style));
      if (numbered_) text += number;
      const std::size_t begin = column(span.start_us);
      for (std::size_t at = begin; at < column(span.end_us); ++at) {
        char c = numbered_ ? '-' : text.front();
        if (numbered_ && at - begin < text.size()) c = text[at - begin];
        if (!numbered_ && options_.colour) c = number.back();
        cells[at] = {c, style};
      }
    }
    return cells;
  }

  std::string row(int rank) const {
    std::string text;
    const Style* now = nullptr;
    for (const Cell& cell : cells(rank)) {
      if (options_.colour && cell.style != now) text += cell.style ? cell.style->colour : kPlain;
      now = cell.style;
      text += cell.text;
    }
    if (options_.colour && now != nullptr) text += kPlain;
    return text;
  }

  std::string head() const {
    double idle = 0;
    for (const RankReport& rank : report_.ranks) idle += rank.bubble;
    return fmt::format("{}: {} ranks, {} micro-batches, step {:.6g} us, bubble {:.1f} %\n",
                       schedule_.name, schedule_.ranks, schedule_.micro_batches, report_.step_us,
                       100 * idle / schedule_.ranks);
  }

  // Of what the schedule has.
  std::string legend() const {
    std::string text;
    for (const Style& style : kStyles) {
      const bool drawn =
          std::any_of(schedule_.of_rank.begin(), schedule_.of_rank.end(), [&](const auto& list) {
            return std::any_of(list.begin(), list.end(), [&](const Instruction& instruction) {
              return instruction.action == style.action;
            });
          });
      if (!drawn) continue;
      text += options_.colour ? fmt::format("{}{}{}", style.colour, style.letter, kPlain)
                              : std::string(1, style.letter);
      text += fmt::format(" {}  ", style.meaning);
    }
    const bool chunks = schedule_.stages() > schedule_.ranks;
    return text + (chunks ? ". idle  small letters: the rank's later chunks\n" : ". idle\n");
  }

  // Constant after construction.
  const Schedule& schedule_;
  const ScheduleReport& report_;
  const PictureOptions& options_;
  std::size_t label_ = 0;    // columns of "rank 12"
  std::size_t columns_ = 0;  // of the step
  bool numbered_ = false;    // each instruction has room for its letter and micro-batch
};

}  // namespace

std::string draw_schedule(const Schedule& schedule, const ScheduleReport& report,
                          const PictureOptions& options) {
  return Picture(schedule, report, options).draw();
}

}  // namespace trireme::plan
