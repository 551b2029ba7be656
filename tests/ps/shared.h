// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Shared: a value that copies share until one of them is changed, and whose hash is computed once.
// For states of which most parts are those of the state before.
//
//   Shared<Message> message(Message{...});
//   Shared<Message> other = message;
//   other.change().term = 3;   // message->term is what it was
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace trireme::ps {

struct Hash {
  std::uint64_t low = 0, high = 0;
  bool operator==(const Hash&) const = default;

  static Hash of(const std::string& bytes) {
    const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
    return {hash.low64, hash.high64};
  }
};

// Not thread-safe.
template <class T>
class Shared {
 public:
  Shared() : Shared(T{}) {}
  explicit Shared(T value) : held_(std::make_shared<Held>(std::move(value))) {}

  const T& operator*() const { return held_->value; }
  const T* operator->() const { return &held_->value; }
  // This copy's alone.
  T& change() {
    if (held_.use_count() > 1) held_ = std::make_shared<Held>(held_->value);
    held_->hash.reset();
    return held_->value;
  }
  // Of what describe(value) writes.
  template <class Describe>
  const Hash& hash(const Describe& describe) const {
    if (!held_->hash) held_->hash = Hash::of(describe(held_->value));
    return *held_->hash;
  }

 private:
  struct Held {
    explicit Held(T held) : value(std::move(held)) {}
    T value;
    std::optional<Hash> hash;
  };
  std::shared_ptr<Held> held_;
};

}  // namespace trireme::ps
