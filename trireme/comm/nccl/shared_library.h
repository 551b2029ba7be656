// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// A library that is looked for when the program runs. It stays loaded until the process ends:
// CUDA's libraries have threads of their own.
#pragma once

#include <span>
#include <string>

namespace trireme {

// Constant after construction.
class SharedLibrary {
 public:
  // The first of the names, or paths, that can be opened. Throws ConfigError with what the loader
  // says of each; purpose is what the library is needed for.
  SharedLibrary(std::string purpose, std::span<const std::string> names);

  // Throws ConfigError when the library has no such function.
  template <class Function>
  void find(const char* symbol, Function*& function) const {
    function = reinterpret_cast<Function*>(address_of(symbol));
  }

 private:
  void* address_of(const char* symbol) const;

  std::string name_;
  std::string purpose_;
  void* handle_ = nullptr;
};

}  // namespace trireme
