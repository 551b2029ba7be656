// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Small readers for the text files of /proc and /sys. A file that is missing, or that the kernel
// refuses to read, is empty text.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace trireme::detail {

// The whole file.
std::string read_file(const std::filesystem::path& path);

// The file without white space at its ends.
std::string read_line(const std::filesystem::path& path);

// A decimal number, or nothing where the text holds anything else.
std::optional<std::int64_t> parse_integer(std::string_view text);

std::string_view trimmed(std::string_view text);
// Parts between white space.
std::vector<std::string> split_words(std::string_view text);
std::vector<std::string_view> split_lines(std::string_view text);

// "name: value" lines, such as those of /proc/meminfo; the first of a name holds.
std::map<std::string, std::string> read_fields(const std::filesystem::path& path);

// "0-2,8" -> {0, 1, 2, 8}; nothing for text of another form.
std::optional<std::vector<int>> parse_cpu_list(std::string_view text);

}  // namespace trireme::detail
