"""Documents that show pictures: `document` reads and changes them, `gaps` finds what lacks alternative text."""
