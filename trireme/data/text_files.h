// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The text files below a folder. Internal to trireme/data.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace trireme::detail {

// Why a file is not text for us; the words of PrepareReport::skipped.
inline constexpr const char* kBinary = "binary";  // holds a zero byte
inline constexpr const char* kEmpty = "empty";
inline constexpr const char* kDuplicate = "duplicate";
inline constexpr const char* kTooLarge = "too large";
inline constexpr const char* kUnreadable = "unreadable";
inline constexpr const char* kSymbolicLink = "symbolic link";
inline constexpr const char* kNotRegular = "not a regular file";

struct TextFile {
  std::string path;  // below the root, with '/' between
  std::int64_t size = 0;
};

struct TextListing {
  std::string root;             // folder; paths are relative to it
  std::vector<TextFile> files;  // ascending by the bytes of path; regular, not empty, not too large
  std::map<std::string, std::int64_t> skipped;
  std::string hash;  // over path, size and time of last change of everything that was seen

  std::int64_t bytes() const;
};

// Lists folder text and all below it, or the one file text. Symbolic links below text are not
// followed; folders whose absolute path is in excluded are not entered. Throws DataError when text
// is missing or cannot be opened.
TextListing list_text_files(const std::string& text, std::int64_t max_file_bytes,
                            const std::vector<std::string>& excluded);

// The content of a file; nothing when it cannot be read, or is no regular file any more. At most
// limit bytes.
std::optional<std::string> read_text_file(const std::string& root, const TextFile& file,
                                          std::int64_t limit);

// xxh3-128, 32 hexadecimal digits.
std::string content_hash(std::string_view bytes);

// "3 binary, 1 empty"; "none" for no reason at all.
std::string describe_skipped(const std::map<std::string, std::int64_t>& skipped);

}  // namespace trireme::detail
