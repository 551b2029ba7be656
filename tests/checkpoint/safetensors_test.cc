// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "tests/checkpoint/tensors.h"
#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::read_text;
using testing::TemporaryFolder;
using testing::TensorSet;
using ::testing::ThrowsMessage;
using testing::write_text;

// A safetensors file from a header's text as it is, without padding.
std::string raw_file(const std::string& header, std::size_t data_bytes) {
  std::string file(8, '\0');
  const std::uint64_t length = header.size();
  std::memcpy(file.data(), &length, sizeof(length));
  return file + header + std::string(data_bytes, 'd');
}

TensorSet every_kind() {
  TensorSet set;
  set.add("bytes", DType::kU8, {3});
  set.add("weights", DType::kF32, {3, 5});
  set.add("half", DType::kF16, {7, 1, 3});
  set.add("double", DType::kF64, {5});
  set.add("scalar", DType::kF32, {});
  set.add("empty", DType::kI64, {3, 0, 5});
  set.add("brain", DType::kBF16, {5});
  set.add("signed", DType::kI8, {7});
  set.add("step", DType::kI64, {1});
  set.add("index", DType::kI32, {3, 1});
  set.add("schicht.\xc3\xa4\xe5\xb1\x82\xf0\x9f\x9a\xa3 \"quoted\"\\\n", DType::kF32, {1});
  set.add("", DType::kU8, {1});
  return set;
}

std::string write(const std::string& path, const TensorSet& set,
                  const std::map<std::string, std::string>& metadata = {}) {
  SafetensorsWriter writer(path);
  for (const auto& [name, view] : set.tensors()) {
    writer.add(name, view.dtype, view.shape, view.bytes);
  }
  return writer.write(metadata);
}

class SafetensorsTest : public ::testing::Test {
 protected:
  std::string path(const std::string& name = "t.safetensors") const {
    return (folder_ / name).string();
  }
  // What SafetensorsFile says of a file with these bytes.
  auto opening(const std::string& bytes) const {
    write_text(path("given"), bytes);
    return [file = path("given")] { SafetensorsFile{file}; };
  }
  auto opening_header(const std::string& header, std::size_t data_bytes) const {
    return opening(raw_file(header, data_bytes));
  }

  TemporaryFolder folder_{testing::memory_folder()};
};

TEST_F(SafetensorsTest, RoundTripOfEveryKind) {
  const TensorSet set = every_kind();
  const std::string digest =
      write(path(), set, {{"format", "pt"}, {"n\xc3\xb6te", "\xe2\x82\xac"}});

  const SafetensorsFile file(path());
  EXPECT_EQ(file.tensors().size(), set.tensors().size());
  for (const auto& [name, view] : set.tensors()) {
    EXPECT_TRUE(testing::same_tensor(file.at(name), view)) << name;
  }
  EXPECT_THAT(file.metadata(),
              ::testing::ElementsAre(::testing::Pair("format", "pt"),
                                     ::testing::Pair("n\xc3\xb6te", "\xe2\x82\xac")));
  EXPECT_EQ(file.digest(), digest);
  EXPECT_THAT([&] { file.at("weight"); },
              ThrowsMessage<CheckpointError>(AllOf(HasSubstr("weight"), HasSubstr(path()))));
}

TEST_F(SafetensorsTest, EveryTensorIsAlignedToItsElements) {
  const TensorSet set = every_kind();
  write(path(), set);
  std::uint64_t length = 0;
  std::memcpy(&length, read_text(path()).data(), sizeof(length));
  EXPECT_EQ((8 + length) % 64, 0u);
  const SafetensorsFile file(path());
  for (const auto& [name, view] : file.tensors()) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(view.bytes.data()) % dtype_bytes(view.dtype), 0u)
        << name;
  }
}

TEST_F(SafetensorsTest, FileWithoutTensors) {
  write(path(), TensorSet());
  EXPECT_TRUE(SafetensorsFile(path()).tensors().empty());
}

TEST_F(SafetensorsTest, LargerThanOnePieceOfWriting) {
  TensorSet set;
  set.add("a", DType::kF32, {1000, 701});
  set.add("b", DType::kU8, {1'048'577});
  const std::string digest = write(path(), set);
  const SafetensorsFile file(path());
  EXPECT_TRUE(testing::same_tensor(file.at("a"), set.tensors()[0].second));
  EXPECT_TRUE(testing::same_tensor(file.at("b"), set.tensors()[1].second));
  EXPECT_EQ(file.digest(), digest);
}

TEST_F(SafetensorsTest, WriterRefusesWhatTheFormatCannotHold) {
  const std::vector<std::byte> data(12);
  SafetensorsWriter writer(path());
  writer.add("a", DType::kF32, {3}, data);
  EXPECT_THAT([&] { writer.add("a", DType::kF32, {3}, data); },
              ThrowsMessage<ConfigError>(HasSubstr("'a'")));
  EXPECT_THROW(writer.add("__metadata__", DType::kF32, {3}, data), ConfigError);
  EXPECT_THAT(
      [&] {
        writer.add("b", DType::kF32, {2, 2}, data);
      },
      ThrowsMessage<ShapeError>(AllOf(HasSubstr("12"), HasSubstr("[2, 2]"), HasSubstr("16"))));
  EXPECT_THROW(writer.add("c", DType::kF32, {-3}, data), ShapeError);
  const std::int64_t huge = std::int64_t{1} << 62;
  EXPECT_THROW(writer.add("d", DType::kF32, {huge, 4, 3}, data), ShapeError);
  EXPECT_THROW(
      writer.add("e", DType::kU8, std::vector<std::int64_t>(65, 1), std::span(data).first(1)),
      ShapeError);
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(SafetensorsTest, WriterRefusesNamesThatAreNotText) {
  const std::vector<std::byte> data(4);
  SafetensorsWriter writer(path());
  writer.add("\xff\xfe", DType::kF32, {}, data);
  EXPECT_THROW(writer.write({}), ConfigError);
  SafetensorsWriter other(path());
  EXPECT_THROW(other.write({{"key", "\xc0\x80"}}), ConfigError);
  EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(SafetensorsTest, WriterReplacesNothing) {
  write_text(path(), "precious");
  EXPECT_THAT([&] { write(path(), TensorSet()); },
              ThrowsMessage<CheckpointError>(HasSubstr("File exists")));
  EXPECT_EQ(read_text(path()), "precious");
}

TEST_F(SafetensorsTest, TruncatedAnywhere) {
  write(path(), every_kind(), {{"format", "pt"}});
  const std::string whole = read_text(path());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THROW(opening(whole.substr(0, size))(), CheckpointError) << size;
  }
  EXPECT_THROW(opening(whole + 'x')(), CheckpointError);
  EXPECT_NO_THROW(opening(whole)());
}

TEST_F(SafetensorsTest, HeaderLengthIsCheckedBeforeItIsBelieved) {
  for (const std::uint64_t length :
       {std::uint64_t{100'000'001}, std::uint64_t{1} << 62, std::uint64_t{1} << 63,
        ~std::uint64_t{0}, ~std::uint64_t{0} - 7}) {
    std::string file = raw_file("{}", 0);
    std::memcpy(file.data(), &length, sizeof(length));
    EXPECT_THAT(opening(file), ThrowsMessage<CheckpointError>(HasSubstr("100000000")));
  }
  std::string beyond = raw_file("{}", 0);
  beyond[0] = 3;
  EXPECT_THAT(opening(beyond), ThrowsMessage<CheckpointError>(HasSubstr("truncated")));
}

TEST_F(SafetensorsTest, OtherFilesAreRefusedByName) {
  EXPECT_THAT(opening("PK\x03\x04" + std::string(100, 'x')),
              ThrowsMessage<CheckpointError>(HasSubstr("pickle")));
  EXPECT_THAT(opening("\x80\x02" + std::string(100, 'x')),
              ThrowsMessage<CheckpointError>(HasSubstr("pickle")));
  EXPECT_THAT(opening("version https://git-lfs.github.com/spec/v1\noid"),
              ThrowsMessage<CheckpointError>(HasSubstr("git lfs pull")));
  EXPECT_THAT([&] { SafetensorsFile{path("none")}; },
              ThrowsMessage<CheckpointError>(HasSubstr("No such file")));
  EXPECT_THAT([&] { SafetensorsFile{folder_.path().string()}; },
              ThrowsMessage<CheckpointError>(HasSubstr("folder")));
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_THAT([&] { SafetensorsFile{path("pipe")}; },
              ThrowsMessage<CheckpointError>(HasSubstr("pipe")));
}

TEST_F(SafetensorsTest, MessagesNameTheTensorAndTheNumbers) {
  const auto says = [&](const std::string& header, std::size_t bytes, const std::string& part) {
    EXPECT_THAT(opening_header(header, bytes), ThrowsMessage<CheckpointError>(HasSubstr(part)))
        << header;
  };
  says(R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", 1, "dtype 'F8_E4M3'");
  says(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8,
       "8 bytes, but F32 [3] takes 12");
  says(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})", 3, "bytes 1 to 3, but byte 0");
  says(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 5, "end at byte 2 of 5");
  says(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
       R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
       3, "'b' has bytes 1 to 3");
  says(R"({"a":{"dtype":"U8","shape":[2,4611686018427387904,4],"data_offsets":[0,2]}})", 2, "2^63");
  says(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,0]}})", 0, "dim");
  says(R"({"a":{"shape":[0],"data_offsets":[0,0]}})", 0, "lacks");
  says(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}})", 0, "1 data_offsets");
  says(R"({"a\u001b[2Jb":{"dtype":"X","shape":[0],"data_offsets":[0,0]}})", 0, R"('a\x1b[2Jb')");
}

TEST_F(SafetensorsTest, DeepNestingAndLongNumbersEndEarly) {
  const std::string deep(1'000'000, '[');
  EXPECT_THROW(opening_header("{\"a\":" + deep, 0)(), CheckpointError);
  EXPECT_THROW(opening_header("{\"a\":{\"shape\":" + deep, 0)(), CheckpointError);
  EXPECT_THROW(opening_header("{\"a\":{\"shape\":[" + std::string(1'000'000, '9') + "]", 0)(),
               CheckpointError);
  std::string dims = "0";
  for (int i = 0; i < 100'000; ++i) dims += ",0";
  EXPECT_THAT(opening_header(
                  "{\"a\":{\"dtype\":\"U8\",\"shape\":[" + dims + "],\"data_offsets\":[0,0]}}", 0),
              ThrowsMessage<CheckpointError>(HasSubstr("64 dims")));
}

// Reads every byte that a loaded file claims to hold, so that a sanitizer sees a wrong claim.
std::size_t touch(const SafetensorsFile& file) {
  std::size_t sum = 0;
  for (const auto& [name, view] : file.tensors()) {
    for (const std::byte byte : view.bytes) sum += static_cast<std::size_t>(byte);
  }
  return sum;
}

// One random change of the kinds that break parsers.
std::string mutate(std::string bytes, std::mt19937_64& random) {
  static const std::vector<std::string> kPieces = {"{",
                                                   "}",
                                                   "[",
                                                   "]",
                                                   ",",
                                                   ":",
                                                   "\"",
                                                   "0",
                                                   "-1",
                                                   "1e9",
                                                   "18446744073709551616",
                                                   "null",
                                                   "true",
                                                   "\"dtype\"",
                                                   "\"shape\":[1]",
                                                   "\"__metadata__\":{}",
                                                   "\\u0000",
                                                   "\xff",
                                                   std::string(1, '\0')};
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % n); };
  const std::size_t at = below(bytes.size());
  switch (below(6)) {
    case 0:
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
      break;
    case 1:
      bytes[below(8)] = static_cast<char>(random());
      break;
    case 2:
      bytes.erase(at, 1 + below(9));
      break;
    case 3:
      bytes.insert(at, kPieces[below(kPieces.size())]);
      break;
    case 4:
      bytes.insert(at, bytes.substr(below(bytes.size()), below(60)));
      break;
    default:
      bytes[at] = static_cast<char>('0' + below(10));
  }
  return bytes;
}

TEST_F(SafetensorsTest, RandomMutationsLoadOrThrow) {
  TensorSet set;
  set.add("a.weight", DType::kF32, {3, 5});
  set.add("b", DType::kU8, {7});
  set.add("c", DType::kI64, {});
  write(path(), set, {{"format", "pt"}});
  const std::string whole = read_text(path());
  std::uint64_t length = 0;
  std::memcpy(&length, whole.data(), sizeof(length));
  std::mt19937_64 random(20260101);
  int loaded = 0;
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string bytes = mutate(whole, random);
    if (i % 2 == 0) {
      bytes = mutate(bytes, random);
    }
    if (i % 3 == 0 && bytes.size() > 8) {  // a right length lets the parser see the rest
      const std::uint64_t shifted = length + bytes.size() - whole.size();
      std::memcpy(bytes.data(), &shifted, sizeof(shifted));
    }
    write_text(path("mutated"), bytes);
    try {
      touch(SafetensorsFile(path("mutated")));
      ++loaded;
    } catch (const CheckpointError&) {
      ++refused;
    }
  }
  EXPECT_GT(loaded, 1000);
  EXPECT_GT(refused, 1000);
}

const std::filesystem::path kGolden =
    std::filesystem::path(TRIREME_SOURCE_DIR) / "tests/golden/safetensors";

// Made by tools/make_safetensors_golden.py with the format's reference implementation.
TEST_F(SafetensorsTest, ReadsAFileOfTheReferenceImplementation) {
  const SafetensorsFile file((kGolden / "reference.safetensors").string());
  EXPECT_THAT(file.metadata(), ::testing::ElementsAre(::testing::Pair("format", "np")));
  EXPECT_EQ(file.tensors().size(), 8u);
  const TensorView& f32 = file.at("f32");
  EXPECT_EQ(f32.dtype, DType::kF32);
  EXPECT_THAT(f32.shape, ::testing::ElementsAre(3, 5));
  for (std::size_t i = 0; i < 15; ++i) {
    float value = 0;
    std::memcpy(&value, f32.bytes.data() + 4 * i, 4);
    EXPECT_EQ(value, static_cast<float>(i) / 4 - 1);
  }
  const TensorView& i64 = file.at("i64.\xc3\xa4");
  std::int64_t value = 0;
  std::memcpy(&value, i64.bytes.data() + 8, 8);
  EXPECT_EQ(value, -3'000'000'001);
  EXPECT_EQ(file.at("scalar").shape.size(), 0u);
  EXPECT_EQ(file.at("scalar").dtype, DType::kF64);
  EXPECT_THAT(file.at("empty").shape, ::testing::ElementsAre(0, 3));
  EXPECT_EQ(file.at("f16").dtype, DType::kF16);
  EXPECT_EQ(file.at("i32").dtype, DType::kI32);
  EXPECT_EQ(file.at("i8").dtype, DType::kI8);
  EXPECT_EQ(file.at("u8").dtype, DType::kU8);
}

// Malformed and odd files with the reference implementation's verdict on each. Trireme refuses all
// that it refuses, and more only where the file says why ("stricter").
TEST_F(SafetensorsTest, SameVerdictsAsTheReferenceImplementation) {
  const nlohmann::json cases = nlohmann::json::parse(read_text(kGolden / "verdicts.json"));
  ASSERT_GT(cases.size(), 40u);
  for (const nlohmann::json& entry : cases) {
    std::string bytes;
    const std::string hex = entry.at("hex");
    for (std::size_t i = 0; i < hex.size(); i += 2) {
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    bool accepted = true;
    std::string reason;
    try {
      opening(bytes)();
    } catch (const CheckpointError& error) {
      accepted = false;
      reason = error.what();
    }
    const bool expected = entry.at("reference_accepts") && !entry.contains("stricter");
    EXPECT_EQ(accepted, expected) << entry.at("name") << ": " << reason;
  }
}

}  // namespace
}  // namespace trireme
