# Generated C of the same model, where there is some: built as a shared library that runs in the place of ONNX Runtime, and
# named EDGETK_ENGINE. Write it with: edgetk export MODEL --cpp FOLDER --c FOLDER/c

set(EDGETK_C "${CMAKE_CURRENT_SOURCE_DIR}/c" CACHE PATH "folder of the model's generated C")
if(EXISTS "${EDGETK_C}/CMakeLists.txt")
  file(STRINGS "${EDGETK_C}/CMakeLists.txt" named REGEX "^project\\(")
  string(REGEX REPLACE "^project\\(([^ ]+).*" "\\1" EDGETK_ENGINE "${named}")
  add_subdirectory("${EDGETK_C}" c)
  message(STATUS "Generated C: ${EDGETK_C}, run it with --engine-library")
endif()
