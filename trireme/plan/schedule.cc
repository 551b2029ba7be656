// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/plan/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <utility>

namespace trireme::plan {
namespace {

using Name = std::pair<std::string_view, Action>;

constexpr std::array<Name, 14> kNames = {{{"F", Action::kForward},
                                          {"B", Action::kBackward},
                                          {"I", Action::kBackwardInput},
                                          {"W", Action::kBackwardWeight},
                                          {"SEND_F", Action::kSendActivation},
                                          {"RECV_F", Action::kReceiveActivation},
                                          {"SEND_B", Action::kSendGradient},
                                          {"RECV_B", Action::kReceiveGradient},
                                          {"SEND_T", Action::kSendTied},
                                          {"RECV_T", Action::kReceiveTied},
                                          {"UNSHARD", Action::kGather},
                                          {"RESHARD", Action::kRelease},
                                          {"REDUCE_GRAD", Action::kReduce},
                                          {"STEP", Action::kStep}}};

// Takes the digits that the text begins with; -1 without any, or for too many.
int take_number(std::string_view& text) {
  constexpr std::size_t kMaxDigits = 9;  // below 10^9
  std::size_t digits = 0;
  while (digits < text.size() && std::isdigit(static_cast<unsigned char>(text[digits])) != 0) {
    ++digits;
  }
  if (digits == 0 || digits > kMaxDigits) return -1;
  int number = 0;
  std::from_chars(text.data(), text.data() + digits, number);
  text.remove_prefix(digits);
  return number;
}

template <class Condition>
bool any_instruction(const Schedule& schedule, Condition condition) {
  return std::any_of(schedule.of_rank.begin(), schedule.of_rank.end(), [&](const auto& list) {
    return std::any_of(list.begin(), list.end(), condition);
  });
}

}  // namespace

std::string_view to_string(Action action) {
  return std::find_if(kNames.begin(), kNames.end(),
                      [&](const Name& name) { return name.second == action; })
      ->first;
}

bool is_compute(Action action) {
  return action == Action::kForward || action == Action::kBackward ||
         action == Action::kBackwardInput || action == Action::kBackwardWeight;
}

bool is_send(Action action) {
  return action == Action::kSendActivation || action == Action::kSendGradient ||
         action == Action::kSendTied;
}

bool is_receive(Action action) {
  return action == Action::kReceiveActivation || action == Action::kReceiveGradient ||
         action == Action::kReceiveTied;
}

bool has_micro_batch(Action action) {
  return is_compute(action) || is_send(action) || is_receive(action);
}

std::string to_string(const Instruction& instruction) {
  std::string text;
  if (instruction.stage >= 0) text += std::to_string(instruction.stage);
  text += to_string(instruction.action);
  if (instruction.micro_batch >= 0) text += std::to_string(instruction.micro_batch);
  return text;
}

std::optional<Instruction> parse_instruction(std::string_view text) {
  Instruction result;
  result.stage = take_number(text);
  const auto is_digit = [](char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; };
  const auto digits = std::find_if(text.begin(), text.end(), is_digit);
  const std::string_view word = text.substr(0, static_cast<std::size_t>(digits - text.begin()));
  const auto found = std::find_if(kNames.begin(), kNames.end(),
                                  [&](const Name& name) { return name.first == word; });
  if (found == kNames.end()) return std::nullopt;
  result.action = found->second;
  text.remove_prefix(word.size());
  result.micro_batch = take_number(text);
  const bool has_stage = result.action != Action::kStep;
  const bool right = text.empty() && (result.stage >= 0) == has_stage &&
                     (result.micro_batch >= 0) == has_micro_batch(result.action);
  return right ? std::optional(result) : std::nullopt;
}

std::vector<int> stages_of_rank(const std::vector<int>& rank_of_stage, int rank) {
  std::vector<int> stages;
  for (std::size_t stage = 0; stage < rank_of_stage.size(); ++stage) {
    if (rank_of_stage[stage] == rank) stages.push_back(static_cast<int>(stage));
  }
  return stages;
}

bool has_backward(const Schedule& schedule) {
  return any_instruction(schedule, [](const Instruction& instruction) {
    return is_compute(instruction.action) && instruction.action != Action::kForward;
  });
}

bool only_compute(const Schedule& schedule) {
  return !any_instruction(
      schedule, [](const Instruction& instruction) { return !is_compute(instruction.action); });
}

}  // namespace trireme::plan
