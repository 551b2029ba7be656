// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/glyphs.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <freetype/freetype.h>
#include <freetype/ftoutln.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include "trireme/base/error.h"
#include "trireme/base/random.h"

namespace trireme::examples {
namespace {

constexpr int kSide = 28;  // pixels
constexpr std::string_view kLetters = "ABCDEFGHIJ";
static_assert(kLetters.size() == kNumImageClasses);
constexpr int kUnitsPerPixel = 64;  // of FreeType's outlines

struct CloseFreeType {
  void operator()(FT_Library library) const { FT_Done_FreeType(library); }
  void operator()(FT_Face face) const { FT_Done_Face(face); }
};
using Library = std::unique_ptr<std::remove_pointer_t<FT_Library>, CloseFreeType>;
using Face = std::unique_ptr<std::remove_pointer_t<FT_Face>, CloseFreeType>;
// The fonts of each family, families in order of their names.
using Families = std::vector<std::vector<Face>>;

Library open_library() {
  FT_Library library = nullptr;
  if (const FT_Error error = FT_Init_FreeType(&library)) {
    throw_error<Error>("FreeType does not start: its error {}", error);
  }
  return Library(library);
}

// Null where the file is no font.
Face open_face(FT_Library library, const std::string& path) {
  FT_Face face = nullptr;
  return Face(FT_New_Face(library, path.c_str(), 0, &face) == 0 ? face : nullptr);
}

// Leaves the letter's outline, at 64 pixels per em, in the face's slot. False where it has none.
bool load_letter(FT_Face face, char letter) {
  return FT_Set_Pixel_Sizes(face, 0, 64) == 0 &&
         FT_Load_Char(face, static_cast<FT_ULong>(letter),
                      FT_LOAD_NO_HINTING | FT_LOAD_NO_BITMAP) == 0 &&
         face->glyph->format == FT_GLYPH_FORMAT_OUTLINE && face->glyph->outline.n_contours > 0;
}

bool can_draw(FT_Face face) {
  if (!FT_IS_SCALABLE(face) || face->family_name == nullptr ||
      FT_Select_Charmap(face, FT_ENCODING_UNICODE) != 0) {
    return false;
  }
  std::set<FT_UInt> glyphs = {0};  // 0 stands for all characters that are missing
  return std::all_of(kLetters.begin(), kLetters.end(), [&](char letter) {
    return glyphs.insert(FT_Get_Char_Index(face, static_cast<FT_ULong>(letter))).second &&
           load_letter(face, letter);
  });
}

// Draws the letter onto zeros [kSide, kSide], distorted by random numbers 0 to 5 from stream.
void draw(FT_Library library, FT_Face face, char letter, const RandomStream& stream,
          std::uint8_t* pixels) {
  const auto between = [&](std::uint64_t index, double low, double high) {
    return low + (high - low) * stream.uniform(index);
  };
  if (!load_letter(face, letter)) {
    throw_error<DataError>("font {} cannot be read any more", face->family_name);
  }
  FT_Outline& outline = face->glyph->outline;
  const double turn = between(0, -0.15, 0.15);  // radians
  const double slant = between(1, -0.15, 0.15);
  const auto fixed = [](double value) { return std::lround(value * 0x10000); };  // 16.16
  FT_Matrix matrix = {fixed(std::cos(turn)), fixed(slant - std::sin(turn)),      //
                      fixed(std::sin(turn)), fixed(std::cos(turn))};
  FT_Outline_Transform(&outline, &matrix);

  FT_BBox box;
  FT_Outline_Get_CBox(&outline, &box);
  const auto larger = static_cast<double>(std::max(box.xMax - box.xMin, box.yMax - box.yMin));
  const double height = between(2, 19, 25) * kUnitsPerPixel;
  const auto scale = fixed(height / std::max(larger, 1.0));
  matrix = {scale, 0, 0, scale};
  FT_Outline_Transform(&outline, &matrix);

  FT_Outline_Get_CBox(&outline, &box);
  const auto shift = [&](std::uint64_t index) {
    return std::lround(between(index, -1.5, 1.5) * kUnitsPerPixel);
  };
  constexpr FT_Pos kMiddle = kSide * kUnitsPerPixel / 2;
  FT_Outline_Translate(&outline, kMiddle - (box.xMin + box.xMax) / 2 + shift(3),
                       kMiddle - (box.yMin + box.yMax) / 2 + shift(4));

  FT_Bitmap bitmap = {};
  bitmap.rows = bitmap.width = kSide;
  bitmap.pitch = kSide;
  bitmap.buffer = pixels;
  bitmap.num_grays = 256;
  bitmap.pixel_mode = FT_PIXEL_MODE_GRAY;
  if (const FT_Error error = FT_Outline_Get_Bitmap(library, &outline, &bitmap)) {
    throw_error<DataError>("font {} cannot be drawn: FreeType's error {}", face->family_name,
                           error);
  }
}

LabelledImages draw_split(FT_Library library, std::span<const std::vector<Face>> families,
                          std::int64_t count, std::uint64_t seed) {
  LabelledImages split{at::zeros({count, 1, kSide, kSide}, at::kByte),
                       at::empty({count}, at::kLong)};
  for (std::int64_t n = 0; n < count; ++n) {
    const RandomStream stream(seed, static_cast<std::uint64_t>(n));
    const auto pick = [&](std::uint64_t index, const auto& from) -> const auto& {
      return from[static_cast<std::size_t>(stream.uniform(index) *
                                           static_cast<double>(from.size()))];
    };
    const std::int64_t label = n % kNumImageClasses;
    draw(library, pick(6, pick(5, families)).get(), kLetters[static_cast<std::size_t>(label)],
         stream, split.images.data_ptr<std::uint8_t>() + n * kSide * kSide);
    split.labels.data_ptr<std::int64_t>()[n] = label;
  }
  return split;
}

// All fonts open, in an order of families that the seed gives.
Families open_families(FT_Library library, const GlyphOptions& options) {
  std::map<std::string, std::vector<Face>> by_name;
  for (const FontFile& font : find_fonts(options.folders)) {
    if (Face face = open_face(library, font.path)) by_name[font.family].push_back(std::move(face));
  }
  if (by_name.size() < 2) {
    throw_error<DataError>(
        "{} families of fonts with the letters A to J below {}; training and held-out images need "
        "one each: install the fonts of apt-packages.txt",
        by_name.size(), fmt::join(options.folders, ", "));
  }
  const RandomPermutation order(by_name.size(), options.seed, 0);
  Families families(by_name.size());
  std::uint64_t place = 0;
  for (auto& [name, faces] : by_name) families[order(place++)] = std::move(faces);
  return families;
}

}  // namespace

std::vector<FontFile> find_fonts(const std::vector<std::string>& folders) {
  namespace fs = std::filesystem;
  const Library library = open_library();
  std::vector<FontFile> fonts;
  for (const std::string& folder : folders) {
    std::error_code error;
    fs::recursive_directory_iterator entry(folder, fs::directory_options::skip_permission_denied,
                                           error);
    for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
      const std::string path = entry->path().string();
      if (!path.ends_with(".ttf") && !path.ends_with(".otf")) continue;
      const Face face = open_face(library.get(), path);
      if (face == nullptr || !can_draw(face.get())) continue;
      const std::string_view name = face->family_name;
      fonts.push_back({path, std::string(name.substr(0, name.find(' ')))});
    }
  }
  std::sort(fonts.begin(), fonts.end(),
            [](const FontFile& a, const FontFile& b) { return a.path < b.path; });
  return fonts;
}

ImageSplits draw_glyphs(const GlyphOptions& options) {
  const Library library = open_library();
  const Families families = open_families(library.get(), options);
  const auto held_out = std::clamp<std::size_t>(
      static_cast<std::size_t>(options.held_out_families * static_cast<double>(families.size())), 1,
      families.size() - 1);
  const std::span<const std::vector<Face>> all = families;
  return {draw_split(library.get(), all.subspan(held_out), options.num_train, options.seed),
          draw_split(library.get(), all.first(held_out), options.num_held_out, options.seed + 1)};
}

}  // namespace trireme::examples
