// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The errors that Trireme throws, and whose they are.
//
// Two families. Errors of the user or of the world (a bad key, a missing file, a dead peer) are the
// types below: their message says what went wrong, with which value, where, and the likely next
// step, in one line. Broken promises of our own code are InternalError, thrown by the checks of
// check.h. A program turns an error into its exit status with exit_code().
//
//   if (width % heads != 0) {
//     throw_error<ConfigError>("model.width {} is not divisible by model.heads {}", width, heads);
//   }
#pragma once

#include <fmt/core.h>

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

namespace trireme {

// Base of all errors that a caller may want to act on.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What the user asked for cannot be: configuration, command line, folders, layout.
class ConfigError : public Error {
 public:
  using Error::Error;
};

// Tensors or buffers whose shapes or dtypes do not fit together.
class ShapeError : public Error {
 public:
  using Error::Error;
};

// Training data or a tokenizer that is missing, empty, damaged, or of another kind than stated.
class DataError : public Error {
 public:
  using Error::Error;
};

// A checkpoint that is missing, damaged, truncated, or of another model.
class CheckpointError : public Error {
 public:
  using Error::Error;
};

// Communication failed. The group that threw it stays failed; see comm/group.h.
class CommError : public Error {
 public:
  using Error::Error;
};

// A peer did not arrive before the deadline.
class TimeoutError : public CommError {
 public:
  using CommError::CommError;
};

// A peer process ended or its connection broke.
class PeerLostError : public CommError {
 public:
  PeerLostError(int rank, const std::string& message) : CommError(message), rank_(rank) {}
  // The lost peer, as a rank of the world.
  int rank() const { return rank_; }

 private:
  int rank_;
};

// A promise that Trireme makes to itself is broken. Always a bug of ours.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Throws E with a formatted message.
template <class E, class... Args>
[[noreturn]] void throw_error(fmt::format_string<Args...> format, Args&&... args) {
  throw E(fmt::format(format, std::forward<Args>(args)...));
}

// The exit status for an error that reached main(): 2 where the user can mend it (ConfigError,
// ShapeError, DataError, CheckpointError), 1 for everything else.
int exit_code(const std::exception& error);

}  // namespace trireme
