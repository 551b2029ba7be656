// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The bytes of the control plane: frames, and the fields inside them. Pure: no sockets here.
//
// A frame is its payload's length (u32), its type (u8) and the payload. Integers are little-endian,
// a text is its length (u32) and its bytes. Nothing is allocated before it has arrived, and a frame
// longer than the decoder's limit is refused as soon as its length is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "trireme/base/error.h"

namespace trireme {

// Bytes that are not what the protocol says.
class ProtocolError : public CommError {
 public:
  using CommError::CommError;
};

enum class FrameType : std::uint8_t {
  // Meeting, before the connection is trusted.
  kHello = 1,
  kChallenge,
  kProof,
  kTrusted,
  // Meeting, after.
  kMember,
  kWelcome,
  kRefused,
  // Control plane.
  kPut,
  kGet,
  kValue,
  kFailure,
  kGoodbye,
  kAsk,
};

constexpr std::size_t kStrangerFrameLimit = 4096;    // bytes
constexpr std::size_t kMemberFrameLimit = 16 << 20;  // bytes

struct Frame {
  FrameType type{};
  std::string payload;
};

std::string encode_frame(FrameType type, std::string_view payload);

// Puts frames together from bytes as they come.
class FrameDecoder {
 public:
  explicit FrameDecoder(std::size_t limit_bytes) : limit_bytes_(limit_bytes) {}

  void set_limit(std::size_t limit_bytes) { limit_bytes_ = limit_bytes; }
  void feed(std::string_view bytes);
  // The next whole frame. Throws ProtocolError when its length is over the limit or its type
  // unknown.
  std::optional<Frame> next();
  // Nothing is left of what was fed.
  bool empty() const { return begin_ == buffer_.size(); }

 private:
  std::size_t limit_bytes_;
  std::string buffer_;
  std::size_t begin_ = 0;  // of what next() has not given out
};

class FieldWriter {
 public:
  FieldWriter& u8(std::uint8_t value);
  FieldWriter& u32(std::uint32_t value);
  FieldWriter& u64(std::uint64_t value);
  FieldWriter& text(std::string_view value);
  FieldWriter& raw(std::string_view value);
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Reads fields in order. Every function throws ProtocolError when the bytes run out.
class FieldReader {
 public:
  explicit FieldReader(std::string_view bytes) : rest_(bytes) {}

  std::uint8_t u8();
  std::uint32_t u32();
  std::uint64_t u64();
  std::string text();
  std::string_view raw(std::size_t size);
  std::size_t remaining() const { return rest_.size(); }
  // Throws ProtocolError when bytes are left over.
  void finish() const;

 private:
  std::uint64_t integer(int size);
  std::string_view rest_;
};

}  // namespace trireme
