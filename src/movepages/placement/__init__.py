"""Operations on the placement of pages. They know a `Machine`, never which one it is."""
