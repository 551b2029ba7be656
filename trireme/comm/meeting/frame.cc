// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/comm/meeting/frame.h"

namespace trireme {
namespace {

constexpr std::size_t kHeaderBytes = 5;

void append_integer(std::string& bytes, std::uint64_t value, int size) {
  for (int i = 0; i < size; ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

}  // namespace

std::string encode_frame(FrameType type, std::string_view payload) {
  std::string bytes;
  bytes.reserve(kHeaderBytes + payload.size());
  append_integer(bytes, payload.size(), 4);
  bytes.push_back(static_cast<char>(type));
  bytes.append(payload);
  return bytes;
}

void FrameDecoder::feed(std::string_view bytes) {
  buffer_.erase(0, begin_);
  begin_ = 0;
  buffer_.append(bytes);
}

std::optional<Frame> FrameDecoder::next() {
  const std::string_view rest = std::string_view(buffer_).substr(begin_);
  if (rest.size() < kHeaderBytes) return std::nullopt;
  FieldReader header(rest);
  const std::uint32_t size = header.u32();
  const std::uint8_t type = header.u8();
  if (size > limit_bytes_) {
    throw_error<ProtocolError>("a frame of {} bytes, {} are allowed", size, limit_bytes_);
  }
  if (type < static_cast<std::uint8_t>(FrameType::kHello) ||
      type > static_cast<std::uint8_t>(FrameType::kAsk)) {
    throw_error<ProtocolError>("a frame of unknown type {}", type);
  }
  if (rest.size() < kHeaderBytes + size) return std::nullopt;
  begin_ += kHeaderBytes + size;
  return Frame{static_cast<FrameType>(type), std::string(rest.substr(kHeaderBytes, size))};
}

FieldWriter& FieldWriter::u8(std::uint8_t value) {
  append_integer(bytes_, value, 1);
  return *this;
}
FieldWriter& FieldWriter::u32(std::uint32_t value) {
  append_integer(bytes_, value, 4);
  return *this;
}
FieldWriter& FieldWriter::u64(std::uint64_t value) {
  append_integer(bytes_, value, 8);
  return *this;
}
FieldWriter& FieldWriter::text(std::string_view value) {
  u32(static_cast<std::uint32_t>(value.size()));
  return raw(value);
}
FieldWriter& FieldWriter::raw(std::string_view value) {
  bytes_.append(value);
  return *this;
}

std::string_view FieldReader::raw(std::size_t size) {
  if (size > rest_.size()) {
    throw_error<ProtocolError>("a field of {} bytes where {} are left", size, rest_.size());
  }
  const std::string_view field = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return field;
}

std::uint64_t FieldReader::integer(int size) {
  const std::string_view field = raw(static_cast<std::size_t>(size));
  std::uint64_t value = 0;
  for (int i = 0; i < size; ++i) {
    value |= static_cast<std::uint64_t>(static_cast<unsigned char>(field[i])) << (8 * i);
  }
  return value;
}

std::uint8_t FieldReader::u8() { return static_cast<std::uint8_t>(integer(1)); }
std::uint32_t FieldReader::u32() { return static_cast<std::uint32_t>(integer(4)); }
std::uint64_t FieldReader::u64() { return integer(8); }
std::string FieldReader::text() {
  const std::uint32_t size = u32();
  return std::string(raw(size));
}

void FieldReader::finish() const {
  if (!rest_.empty()) throw_error<ProtocolError>("{} bytes too many", rest_.size());
}

}  // namespace trireme
