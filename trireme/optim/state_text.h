// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Reads back the small states that checkpoints keep as numbers with spaces between them.
#pragma once

#include <charconv>
#include <string_view>

#include "trireme/base/error.h"

namespace trireme::optim::detail {

// Not thread-safe. The text must outlive it.
class StateReader {
 public:
  // whose: for messages, "the guard's".
  StateReader(std::string_view whose, std::string_view text)
      : whose_(whose), text_(text), rest_(text) {}

  // Takes the next number. Throws CheckpointError where there is none.
  template <class Number>
  void next(Number& value) {
    if (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error != std::errc()) refuse();
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
  }

  // Throws CheckpointError unless nothing is left.
  void finish() const {
    if (!rest_.empty()) refuse();
  }

 private:
  [[noreturn]] void refuse() const {
    throw_error<CheckpointError>(
        "{} state in the checkpoint is '{}', which is damaged or another version's: take an "
        "earlier checkpoint",
        whose_, text_);
  }

  std::string_view whose_;
  std::string_view text_;
  std::string_view rest_;
};

}  // namespace trireme::optim::detail
